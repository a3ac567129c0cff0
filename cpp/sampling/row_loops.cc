#include "sampling/row_loops.h"

#include <algorithm>
#include <array>
#include <limits>

#include "base/cpu_isa.h"
#include "sampling/distribution.h"
#include "sampling/exp_rows.h"

namespace specdec {
namespace {

constexpr std::size_t kLanes = 32;  // that compilers make vectors of

struct RowLoops {
  RowTop (*row_top)(const float*, std::size_t);
  void (*log_weights)(const float*, std::size_t, double, double, double*);
  std::uint64_t (*floats_at_least)(const float*, std::size_t, float);
  std::uint64_t (*doubles_at_least)(const double*, std::size_t, double);
};

[[gnu::always_inline]] inline RowTop row_top_loop(const float* row, std::size_t n) {
  float best[kLanes];
  std::uint32_t nan[kLanes];
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    best[lane] = -std::numeric_limits<float>::infinity();
    nan[lane] = 0;
  }
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const float x = row[i + lane];
      nan[lane] |= x != x ? 1U : 0U;
      best[lane] = x > best[lane] ? x : best[lane];
    }
  }
  for (; i < n; ++i) {
    nan[0] |= row[i] != row[i] ? 1U : 0U;
    best[0] = row[i] > best[0] ? row[i] : best[0];
  }
  RowTop out{best[0], nan[0] != 0};
  for (std::size_t lane = 1; lane < kLanes; ++lane) {
    out.max = best[lane] > out.max ? best[lane] : out.max;
    out.has_nan = out.has_nan || nan[lane] != 0;
  }
  return out;
}

[[gnu::always_inline]] inline void log_weights_loop(const float* row, std::size_t n, double max,
                                                    double temperature, double* out) {
  for (std::size_t i = 0; i < n; ++i) out[i] = (static_cast<double>(row[i]) - max) / temperature;
}

template <class Bits>
constexpr auto kBit = [] {
  std::array<Bits, 8 * sizeof(Bits)> bit{};
  for (std::size_t i = 0; i < bit.size(); ++i) bit[i] = Bits{1} << i;
  return bit;
}();

// Bits as wide as what is compared make vectors of the whole loop.
template <class Bits, class Real>
[[gnu::always_inline]] inline std::uint64_t at_least_loop(const Real* values, std::size_t n,
                                                          Real floor) {
  static_assert(sizeof(Bits) == sizeof(Real));
  constexpr std::size_t kBlock = kBit<Bits>.size();
  std::uint64_t out = 0;
  std::size_t first = 0;
  for (; first + kBlock <= n; first += kBlock) {
    Bits block = 0;
    for (std::size_t i = 0; i < kBlock; ++i)
      block |= (Bits{0} - Bits{values[first + i] >= floor}) & kBit<Bits>[i];
    out |= std::uint64_t{block} << first;
  }
  for (; first < n; ++first) out |= std::uint64_t{values[first] >= floor ? 1U : 0U} << first;
  return out;
}

}  // namespace

#define SPECDEC_ROW_LOOPS(target)                                                                 \
  target static RowTop row_top(const float* row, std::size_t n) { return row_top_loop(row, n); }  \
  target static void log_weights(const float* row, std::size_t n, double max, double temperature, \
                                 double* out) {                                                   \
    log_weights_loop(row, n, max, temperature, out);                                              \
  }                                                                                               \
  target static std::uint64_t floats_at_least(const float* v, std::size_t n, float floor) {       \
    return at_least_loop<std::uint32_t>(v, n, floor);                                             \
  }                                                                                               \
  target static std::uint64_t doubles_at_least(const double* v, std::size_t n, double floor) {    \
    return at_least_loop<std::uint64_t>(v, n, floor);                                             \
  }                                                                                               \
  static constexpr RowLoops kRowLoops = {&row_top, &log_weights, &floats_at_least,                \
                                         &doubles_at_least};
namespace scalar {
SPECDEC_ROW_LOOPS()
}  // namespace scalar
#if defined(__x86_64__)
namespace avx2 {
SPECDEC_ROW_LOOPS([[gnu::target("avx2")]])
}  // namespace avx2
#endif
#undef SPECDEC_ROW_LOOPS

namespace {

const RowLoops& loops() {
#if defined(__x86_64__)
  static const RowLoops& best =
      active_cpu_isa() != CpuIsa::kScalar ? avx2::kRowLoops : scalar::kRowLoops;
  return best;
#else
  return scalar::kRowLoops;
#endif
}

}  // namespace

RowTop row_top(std::span<const float> row) { return loops().row_top(row.data(), row.size()); }

void log_weights_of(std::span<const float> row, double max, double temperature, double* out) {
  loops().log_weights(row.data(), row.size(), max, temperature, out);
}

double exp_sum(std::span<const double> values) {
  constexpr std::size_t kBlock = 512;  // stays in the first cache
  double sum = 0.0;
  double exps[kBlock];
  while (!values.empty()) {
    const std::size_t n = std::min(kBlock, values.size());
    exp_row(values.data(), 0.0, exps, n);
    sum += fixed_sum({exps, n});
    values = values.subspan(n);
  }
  return sum;
}

std::uint64_t at_least(std::span<const float> values, float floor) {
  return loops().floats_at_least(values.data(), values.size(), floor);
}
std::uint64_t at_least(std::span<const double> values, double floor) {
  return loops().doubles_at_least(values.data(), values.size(), floor);
}

}  // namespace specdec
