// From GGUF blocks to the device's layout (formats.h).
#include <cstring>

#include "backend/cuda/kernels/formats.h"
#include "backend/cuda/kernels/layout.h"
#include "base/error.h"
#include "base/thread_pool.h"

namespace specdec::cuda {
namespace {

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

// The codes of a unit of 16 rows; `blocks`: where those that exist begin.
template <class Block, int kUnit>
void put_codes(const Block* const* blocks, int n_valid, std::int64_t n_weights, std::uint8_t* out) {
  using F = CodeFormat<Block, kUnit>;
  constexpr int kPerBlock = kUnit == 64 ? 1 : 8;  // codes(b, ..) of a block
  constexpr std::uint32_t kLowMask = 0x01010101U * ((1U << F::kLow) - 1);
  constexpr std::uint32_t kHighMask = 0x01010101U * ((1U << F::kHigh) - 1);
  std::uint32_t low[32][32] = {};
  std::uint32_t high[32][32] = {};
  for (int b = 0; b < static_cast<int>(n_weights / 32); ++b) {
    for (int row = 0; row < n_valid; ++row) {
      std::uint8_t q[32];
      blocks[row][b / kPerBlock].codes(b % kPerBlock, q);
      for (int k4 = 0; k4 < 8; ++k4) {
        const int lane = row % 8 * 4 + k4 % 4;
        const int v = b % 2 * 4 + k4 / 4 * 2 + row / 8;
        std::uint32_t codes;
        std::memcpy(&codes, q + 4 * k4, 4);
        if constexpr (F::kLow == 8) {
          add_word(low[lane], 8, b / 2, v, codes ^ 0x80808080U);  // signed
        } else {
          add_word(low[lane], F::kLow, b / 2, v, codes & kLowMask);
          add_word(high[lane], F::kHigh, b / 2, v, codes >> F::kLow & kHighMask);
        }
      }
    }
  }
  constexpr int kLowWords = kUnit / 64 * F::kLow;
  put_plane(low, kLowWords, out);
  if (F::kHigh > 0) put_plane(high, kUnit / 64 * F::kHigh, out + kLowWords * 128);
}

void put_half(std::uint8_t* p, std::uint16_t half) { std::memcpy(p, &half, 2); }

template <class Block>
void put_header32(const Block* const* blocks, int n_valid, std::int64_t n_weights,
                  std::uint8_t* out) {
  for (int row = 0; row < n_valid; ++row) {
    std::uint8_t* at = out + row % 8 * (kHasMin<Block> ? 16 : 8) + row / 8 * 2;
    for (int b = 0; b < static_cast<int>(n_weights / 32); ++b) {
      put_half(at + b * 4, d_bits_of(blocks[row][b]));
      if constexpr (kHasMin<Block>) put_half(at + 8 + b * 4, m_bits_of(blocks[row][b]));
    }
  }
}

template <class Block>
void put_header256(const Block* const* blocks, int n_valid, std::uint8_t* out) {
  using F = Format256<Block>;
  std::uint8_t* scales = out + F::kScaleOffset;
  for (int row = 0; row < n_valid; ++row) {
    const Block& block = *blocks[row];
    std::uint8_t* at = out + row % 8 * (kHasMin<Block> ? 8 : 4) + row / 8 * 2;
    put_half(at, d_bits_of(block));
    if constexpr (kHasMin<Block>) put_half(at + 4, m_bits_of(block));
    for (int s = 0; s < 256 / F::kSubBlock; ++s) {
      const auto scale = static_cast<std::uint8_t>(block.scale(s));
      const int place = F::kSubBlock == 16 ? row * 16 + s : row % 8 * 16 + row / 8 * 8 + s;
      scales[place] = scale;
      if constexpr (F::kScales == ScaleKind::kPairs16)
        scales[place] = static_cast<std::uint8_t>(scale | block.min(s) << 4);
      if constexpr (F::kScales == ScaleKind::kPairs32)
        scales[128 + place] = static_cast<std::uint8_t>(block.min(s));
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
    switch (dtype_) {
#define SPECDEC_BLOCK32(name, ...) \
  case DType::k##name:             \
    return pack_blocks<Block##name, 64>(tile);
#define SPECDEC_BLOCK256(name, ...) \
  case DType::k##name:              \
    return pack_blocks<Block##name, 256>(tile);
#include "tensor/formats.def"
      default:
        pack_floats(tile);
    }
  }

 private:
  [[nodiscard]] std::uint8_t* codes(std::int64_t tile, std::int64_t unit) const {
    return codes_ + (tile * n_units_ + unit) * layout_.code_bytes;
  }

  template <class Block, int kUnit>
  void pack_blocks(std::int64_t tile) const {
    constexpr std::int64_t kBlockWeights = kUnit == 64 ? 32 : 256;
    const std::int64_t n_blocks = n_in_ / kBlockWeights;  // of a row
    const std::int64_t first = tile * kRowsPerTile;
    const int n_valid = static_cast<int>(n_out_ - first < 16 ? n_out_ - first : 16);
    const auto* all = reinterpret_cast<const Block*>(src_);
    for (std::int64_t u = 0; u < n_units_; ++u) {
      const Block* blocks[16] = {};
      for (int r = 0; r < n_valid; ++r)
        blocks[r] = all + (first + r) * n_blocks + u * (kUnit / kBlockWeights);
      const std::int64_t left = n_in_ - u * kUnit;
      const std::int64_t n_weights = left < kUnit ? left : kUnit;
      std::uint8_t* header = headers_ + (tile * n_units_ + u) * layout_.header_bytes;
      if constexpr (kUnit == 64) {
        put_header32(blocks, n_valid, n_weights, header);
      } else {
        put_header256(blocks, n_valid, header);
      }
      put_codes<Block, kUnit>(blocks, n_valid, n_weights, codes(tile, u));
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
  SPECDEC_CHECK(n_out >= 1 && n_in >= 1 && n_in % dtype_traits(dtype).block_elements == 0);
  std::memset(dst, 0, packed_bytes(dtype, n_out, n_in));
  const Packer packer(dtype, n_out, n_in, src, dst);
  ThreadPool::shared().run(n_threads, [&](TaskContext& context) {
    for (std::int64_t tile; (tile = context.next_chunk()) < packer.n_tiles();)
      packer.pack_tile(tile);
  });
}

}  // namespace specdec::cuda
