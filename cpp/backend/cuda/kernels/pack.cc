// From GGUF blocks to the device's layout (formats.h), by way of the CPU's tiles, which hold the
// same codes word by word (quant/tile_format.h).
#include <cstring>

#include "backend/cuda/kernels/formats.h"
#include "backend/cuda/kernels/layout.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "quant/tile_format.h"

namespace specdec::cuda {
namespace {

std::uint32_t word(const std::uint8_t* p) {
  std::uint32_t out;
  std::memcpy(&out, p, 4);
  return out;
}

void put_half(std::uint8_t* p, const std::uint8_t* from) { std::memcpy(p, from, 2); }

constexpr std::size_t kMaxTileBytes = 4096;  // of the CPU's tiles

// What a CPU tile's block of 32 consists of.
struct Lines {
  int low = 0, high = 0;  // bits per plane
  std::size_t header = 0;
  [[nodiscard]] std::size_t block_bytes() const {
    return static_cast<std::size_t>(low + high) * 64;
  }
};

Lines lines_of(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
      return {4, 0, 64};
    case DType::kQ4_1:
      return {4, 0, 128};
    case DType::kQ5_0:
      return {4, 1, 64};
    case DType::kQ5_1:
      return {4, 1, 128};
    case DType::kQ8_0:
      return {8, 0, 64};
    case DType::kQ2_K:
      return {2, 0, 320};
    case DType::kQ3_K:
      return {2, 1, 320};
    case DType::kQ4_K:
      return {4, 0, 320};
    case DType::kQ5_K:
      return {4, 1, 320};
    case DType::kQ6_K:
      return {4, 2, 320};
    default:
      throw_internal("a quantised dtype", __FILE__, __LINE__);
  }
}

// The `bits` low or high bits of codes 4v .. 4v+3 of a row, as bytes of a word. lines: a plane.
std::uint32_t line_word(const std::uint8_t* lines, int bits, int v, int row) {
  if (bits == 8) return word(lines + 64 * v + 4 * row) ^ 0x80808080U;  // stored as q + 128
  if (bits == 4) return (word(lines + 64 * (v / 2) + 4 * row) >> (v % 2 * 4)) & 0x0F0F0F0FU;
  if (bits == 2) return (word(lines + 64 * (v / 4) + 4 * row) >> (v % 4 * 2)) & 0x03030303U;
  return (word(lines + 4 * row) >> v) & 0x01010101U;
}

// Adds bits of word v (of 8) of 64 k to a lane's words.
void add_word(std::uint32_t* lane_words, int bits, int s, int v, std::uint32_t codes) {
  if (bits == 8) lane_words[8 * s + v] |= codes;
  if (bits == 4) lane_words[4 * s + v % 4] |= codes << (v / 4 * 4);
  if (bits == 2) lane_words[2 * s + v / 4] |= codes << (v % 4 * 2);
  if (bits == 1) lane_words[s] |= codes << v;
}

void put_plane(const std::uint32_t (&words)[32][32], int n_words, std::uint8_t* out) {
  const int group = n_words % 4 == 0 ? 4 : 1;
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < n_words; ++i) {
      std::memcpy(out + i / group * group * 128 + lane * group * 4 + i % group * 4, &words[lane][i],
                  4);
    }
  }
}

void put_codes(const Lines& lines, int unit, const std::uint8_t* tile, std::uint8_t* out) {
  std::uint32_t low[32][32] = {};
  std::uint32_t high[32][32] = {};
  for (int b = 0; b < unit / 32; ++b) {
    const std::uint8_t* planes =
        tile + lines.header + static_cast<std::size_t>(b) * lines.block_bytes();
    for (int row = 0; row < 16; ++row) {
      for (int k4 = 0; k4 < 8; ++k4) {
        const int lane = row % 8 * 4 + k4 % 4;
        const int v = b % 2 * 4 + k4 / 4 * 2 + row / 8;
        add_word(low[lane], lines.low, b / 2, v, line_word(planes, lines.low, k4, row));
        if (lines.high == 0) continue;
        add_word(high[lane], lines.high, b / 2, v,
                 line_word(planes + lines.low * 64, lines.high, k4, row));
      }
    }
  }
  const int n_low = unit / 64 * lines.low;
  put_plane(low, n_low, out);
  if (lines.high > 0) put_plane(high, unit / 64 * lines.high, out + n_low * 128);
}

void put_header32(const std::uint8_t* tile, bool has_min, std::uint8_t* out) {
  for (int g = 0; g < 8; ++g) {
    std::uint8_t* at = out + g * (has_min ? 16 : 8);
    for (int part = 0; part < (has_min ? 2 : 1); ++part) {
      for (int b = 0; b < 2; ++b) {
        for (int half = 0; half < 2; ++half)
          put_half(at + part * 8 + b * 4 + half * 2,
                   tile + part * 64 + b * 32 + (g + 8 * half) * 2);
      }
    }
  }
}

void put_header256(DType dtype, const std::uint8_t* tile, std::uint8_t* out) {
  const bool has_min = dtype == DType::kQ2_K || dtype == DType::kQ4_K || dtype == DType::kQ5_K;
  for (int g = 0; g < 8; ++g) {
    for (int half = 0; half < 2; ++half) {
      std::uint8_t* at = out + g * (has_min ? 8 : 4) + half * 2;
      put_half(at, tile + (g + 8 * half) * 2);
      if (has_min) put_half(at + 4, tile + 32 + (g + 8 * half) * 2);
    }
  }
  std::uint8_t* scales = out + (has_min ? 64 : 32);
  for (int row = 0; row < 16; ++row) {
    for (int s = 0; s < 16; ++s) {
      if (dtype == DType::kQ2_K) {
        scales[row * 16 + s] = tile[64 + 32 * (s / 2) + 2 * row + s % 2];
      } else if (!has_min) {
        scales[row * 16 + s] = tile[64 + 16 * s + row];
      } else if (s < 8) {
        const int at = row % 8 * 16 + row / 8 * 8 + s;
        scales[at] = tile[64 + 16 * s + row];
        scales[128 + at] = tile[192 + 32 * (s / 2) + 2 * row + s % 2];
      }
    }
  }
}

class Packer {
 public:
  Packer(DType dtype, std::int64_t n_out, std::int64_t n_in, const std::byte* src, std::byte* dst)
      : dtype_(dtype),
        layout_(weight_layout(dtype)),
        n_out_(n_out),
        n_in_(n_in),
        n_units_(div_up(n_in, layout_.unit)),
        src_(src),
        headers_(reinterpret_cast<std::uint8_t*>(dst)),
        codes_(headers_ + header_plane_bytes(dtype, n_out, n_in)) {}

  [[nodiscard]] std::int64_t n_tiles() const { return div_up(n_out_, kRowsPerTile); }

  void pack_tile(std::int64_t tile) const {
    if (layout_.kind == InputKind::kFloat) {
      pack_floats(tile);
    } else {
      pack_blocks(tile);
    }
  }

 private:
  [[nodiscard]] std::uint8_t* codes(std::int64_t tile, std::int64_t unit) const {
    return codes_ + (tile * n_units_ + unit) * layout_.code_bytes;
  }

  void pack_blocks(std::int64_t tile) const {
    const TileFormat& format = tile_format(dtype_);
    const Lines lines = lines_of(dtype_);
    const DTypeTraits& traits = dtype_traits(dtype_);
    std::uint8_t buffer[kMaxTileBytes];
    const auto n_row_bytes =
        static_cast<std::int64_t>(row_bytes(dtype_, static_cast<std::uint64_t>(n_in_)));
    const std::int64_t unit_bytes = layout_.unit / traits.block_elements * traits.block_bytes;
    const std::int64_t first = tile * kRowsPerTile;
    const int n_valid = static_cast<int>(n_out_ - first < 16 ? n_out_ - first : 16);
    for (std::int64_t u = 0; u < n_units_; ++u) {
      const std::byte* rows[16] = {};
      for (int r = 0; r < n_valid; ++r) rows[r] = src_ + (first + r) * n_row_bytes + u * unit_bytes;
      const std::int64_t left = n_in_ - u * layout_.unit;
      format.pack(rows, n_valid, left < layout_.unit ? left : layout_.unit, buffer);
      std::uint8_t* header = headers_ + (tile * n_units_ + u) * layout_.header_bytes;
      if (layout_.kind == InputKind::kQ32) {
        if (dtype_ == DType::kQ8_0) centre_missing(buffer, n_valid, left);
        put_header32(buffer, lines.header == 128, header);
      } else {
        put_header256(dtype_, buffer, header);
      }
      put_codes(lines, layout_.unit, buffer, codes(tile, u));
    }
  }

  // The CPU's tile leaves zero bytes, that is -128, where there is no weight. The scale is zero
  // there; make the codes zero as well.
  static void centre_missing(std::uint8_t* tile, int n_valid, std::int64_t n_weights) {
    for (int b = 0; b < 2; ++b) {
      std::uint8_t* lines = tile + 64 + b * 512;
      if (32 * b >= n_weights) {
        std::memset(lines, 0x80, 512);
        continue;
      }
      for (int v = 0; v < 8; ++v)
        std::memset(lines + 64 * v + 4 * n_valid, 0x80, static_cast<std::size_t>(64 - 4 * n_valid));
    }
  }

  void pack_floats(std::int64_t tile) const {
    const std::int64_t size = dtype_ == DType::kF32 ? 4 : 2;
    const std::int64_t group = 16 / size;  // elements per lane and group of 16 bytes
    for (std::int64_t u = 0; u < n_units_; ++u) {
      std::uint8_t* out = codes(tile, u);
      std::memset(out, 0, static_cast<std::size_t>(layout_.code_bytes));
      for (std::int64_t r = 0; r < 16 && tile * 16 + r < n_out_; ++r) {
        const std::byte* row = src_ + (tile * 16 + r) * n_in_ * size;
        for (std::int64_t k = 0; k < kFloatUnit && u * kFloatUnit + k < n_in_; ++k) {
          const std::int64_t lane = 16 * (k % 2) + r;
          const std::int64_t i = k / 2;
          std::memcpy(out + i / group * 512 + lane * 16 + i % group * size,
                      row + (u * kFloatUnit + k) * size, static_cast<std::size_t>(size));
        }
      }
    }
  }

  DType dtype_;
  WeightLayout layout_;
  std::int64_t n_out_, n_in_, n_units_;
  const std::byte* src_;
  std::uint8_t* headers_;
  std::uint8_t* codes_;
};

}  // namespace

void pack_matrix(DType dtype, std::int64_t n_out, std::int64_t n_in, const std::byte* src,
                 std::byte* dst, int n_threads) {
  SPECDEC_CHECK(tile_format(dtype).tile_bytes <= kMaxTileBytes);
  SPECDEC_CHECK(n_out >= 1 && n_in >= 1 && n_in % dtype_traits(dtype).block_elements == 0);
  std::memset(dst, 0, packed_bytes(dtype, n_out, n_in));
  const Packer packer(dtype, n_out, n_in, src, dst);
  ThreadPool::shared().run(n_threads, [&](TaskContext& context) {
    for (std::int64_t tile; (tile = context.next_chunk()) < packer.n_tiles();)
      packer.pack_tile(tile);
  });
}

}  // namespace specdec::cuda
