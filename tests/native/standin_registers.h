// What amx_registers.h is, in plain memory, with the processor's rules: it throws where that would
// stop the program. Included inside a target region.
#pragma once

namespace specdec::SPECDEC_KERNELS {

struct Registers {
  struct State {
    bool configured = false;
    TileConfig config;
    std::uint8_t tile[8][16][64];
  };
  static State& state() {
    static thread_local State out;
    return out;
  }
  static void need(bool holds, const char* rule) {
    if (!holds) throw std::logic_error(rule);
  }

  static void configure(const TileConfig& config) {
    need(config.palette == 1 && config.start_row == 0, "palette");
    for (int r = 0; r < 16; ++r) {
      need(config.rows[r] <= 16 && config.row_bytes[r] <= 64, "a register's size");
      need((config.rows[r] == 0) == (config.row_bytes[r] == 0), "an empty register");
      need(r < 8 || config.rows[r] == 0, "there are eight registers");
    }
    State& s = state();
    if (!s.configured) ++Standin::n_configured;
    s.configured = true;
    ++Standin::n_configurations;
    s.config = config;
    __builtin_memset(s.tile, 0, sizeof s.tile);
  }
  static void release() {
    State& s = state();
    if (s.configured) --Standin::n_configured;
    s.configured = false;
  }

  template <int kT>
  static void zero() {
    zero(kT);
  }
  template <int kT>
  static void load(const void* p, std::int64_t stride) {
    load(kT, p, stride);
  }
  template <int kT>
  static void store(void* p, std::int64_t stride) {
    store(kT, p, stride);
  }
  template <int kC, int kA, int kB>
  static void dot_su() {
    dot(kC, kA, kB, false);
  }
  template <int kC, int kA, int kB>
  static void dot_ss() {
    dot(kC, kA, kB, true);
  }

  static void zero(int t) {
    use(t);
    __builtin_memset(state().tile[t], 0, 1024);
  }
  static void load(int t, const void* p, std::int64_t stride) {
    use(t);
    State& s = state();
    __builtin_memset(s.tile[t], 0, 1024);
    for (int r = 0; r < s.config.rows[t]; ++r) {
      __builtin_memcpy(s.tile[t][r], static_cast<const char*>(p) + r * stride,
                       s.config.row_bytes[t]);
    }
  }
  static void store(int t, void* p, std::int64_t stride) {
    use(t);
    State& s = state();
    for (int r = 0; r < s.config.rows[t]; ++r)
      __builtin_memcpy(static_cast<char*>(p) + r * stride, s.tile[t][r], s.config.row_bytes[t]);
  }
  [[gnu::noinline]] static void dot(int c, int a, int b, bool is_signed) {
    is_signed = is_signed || Standin::broken;
    need(c != a && c != b && a != b, "a product's registers are three");
    use(c);
    use(a);
    use(b);
    State& s = state();
    const TileConfig& shape = s.config;
    need(shape.rows[c] == shape.rows[a] && shape.row_bytes[c] == shape.row_bytes[b] &&
             shape.row_bytes[a] == 4 * shape.rows[b] && shape.row_bytes[c] % 4 == 0,
         "shapes of a product");
    for (int m = 0; m < shape.rows[c]; ++m) {
      std::int32_t sum[16];
      __builtin_memcpy(sum, s.tile[c][m], 64);
      for (int k = 0; k < shape.rows[b]; ++k) {
        for (int n = 0; n < shape.row_bytes[c] / 4; ++n) {
          for (int i = 0; i < 4; ++i) {
            const std::uint8_t w = s.tile[b][k][4 * n + i];
            const int x = static_cast<std::int8_t>(s.tile[a][m][4 * k + i]);
            sum[n] += x * (is_signed ? int{static_cast<std::int8_t>(w)} : int{w});
          }
        }
      }
      __builtin_memcpy(s.tile[c][m], sum, 64);
    }
  }

 private:
  static void use(int t) {
    const State& s = state();
    need(s.configured, "this thread's registers are not configured");
    need(s.config.rows[t] > 0, "an empty register is used");
  }
};

}  // namespace specdec::SPECDEC_KERNELS
