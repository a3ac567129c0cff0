// Packed weights on the device, and how a lane decodes them: made from the formats' blocks.
//
// A matrix is cut into tiles of 16 rows and units of k (256 for K-quants, 64 for formats with
// blocks of 32, 16 for floats). Two planes: the headers of all units, then the codes of all units,
// each [tile][unit]. Codes lie as the lanes of a warp want them for mma.m16n8k32: within 64 k, lane
// 4g + t owns 8 words of 4 codes, word v = 4h + j with h the block of 32, j = 2 * (k / 16 % 2) +
// (row / 8), row % 8 = g, k = 16 * (j / 2) + 4t + byte. Per lane and 64 k:
//   nibbles   4 words: low halves are words 0-3, high halves words 4-7
//   two bits  2 words: bits 2u, 2u+1 of word h are word 4h + u
//   one bit   1 word:  bit v is word v
//   bytes     8 words
// Words of a plane are grouped by four, [4 words of every lane]: one load of 16 bytes per lane.
#pragma once

#include "backend/cuda/kernels/device.h"
#include "quant/blocks.h"

namespace specdec::cuda {

// Four values packed into a word, of which four codes stand for the k-th four. Outside of the type:
// nvcc calls no function of the host in one of the device, not even for a constant.
template <class Block>
constexpr std::uint32_t values_of(int k) {
  if (!Block::kCodes.by_value) return 0;
  std::uint32_t out = 0;
  for (int i = 0; i < 4; ++i)
    out |= static_cast<std::uint32_t>(static_cast<std::uint8_t>(Block::kCodes.values[4 * k + i]))
           << (8 * i);
  return out;
}

// Of a format of blocks (quant/codes.h), in units of so many k.
template <class Block, int unit>
struct CodeFormat {
  static constexpr Codes kCodes = Block::kCodes;
  static constexpr int kLow = kCodes.low_bits, kHigh = kCodes.high_bits, kUnit = unit;
  static constexpr bool kSigned = kLow == 8 || kCodes.by_value;
  static constexpr int kZeroShift = kSigned ? -1 : kCodes.zero_shift;
  static constexpr int kDShift = kCodes.d_shift;
  static constexpr bool kHasMin = specdec::kHasMin<Block>;
  static constexpr int kBlocks64 = unit / 64;
  static constexpr int kLowWords = kBlocks64 * kLow;  // per lane and unit
  static constexpr int kHighWords = kBlocks64 * kHigh;
  static constexpr int kCodeBytes = (kLowWords + kHighWords) * 128;
  static constexpr std::uint32_t kWord0 = values_of<Block>(0), kWord1 = values_of<Block>(1);
  static constexpr std::uint32_t kWord2 = values_of<Block>(2), kWord3 = values_of<Block>(3);

  struct Raw {
    std::uint32_t low[kLowWords];
    std::uint32_t high[kHighWords == 0 ? 1 : kHighWords];
  };

  template <int n, class G>
  static SPECDEC_GPU void load_plane(G& g, const std::uint8_t* plane, int lane,
                                     std::uint32_t* words) {
    if constexpr (n % 4 == 0) {
      SPECDEC_UNROLL
      for (int c = 0; c < n / 4; ++c) {
        const Word4 four =
            g.load_weight(reinterpret_cast<const Word4*>(plane + c * 512 + lane * 16));
        SPECDEC_UNROLL
        for (int i = 0; i < 4; ++i) words[4 * c + i] = four.w[i];
      }
    } else {
      SPECDEC_UNROLL
      for (int c = 0; c < n; ++c)
        words[c] =
            g.load_weight(reinterpret_cast<const std::uint32_t*>(plane + c * 128 + lane * 4));
    }
  }

  // codes: of this unit.
  template <class G>
  static SPECDEC_GPU void load(G& g, const std::uint8_t* codes, int lane, Raw& raw) {
    load_plane<kLowWords>(g, codes, lane, raw.low);
    if constexpr (kHighWords > 0)
      load_plane<kHighWords>(g, codes + kLowWords * 128, lane, raw.high);
  }

  // The 8 words of codes of 64 k.
  template <int s>
  static SPECDEC_GPU void decode(const Raw& raw, std::uint32_t* w) {
    SPECDEC_UNROLL
    for (int v = 0; v < 8; ++v) {
      std::uint32_t word;
      if constexpr (kLow == 8) {
        word = raw.low[8 * s + v];
      } else if constexpr (kLow == 4) {
        word = (raw.low[4 * s + v % 4] >> (v / 4 * 4)) & 0x0F0F0F0FU;
      } else {
        word = (raw.low[2 * s + v / 4] >> (v % 4 * 2)) & 0x03030303U;
      }
      if constexpr (kHigh == 1) word |= ((raw.high[s] >> v) & 0x01010101U) << kLow;
      if constexpr (kHigh == 2)
        word |= ((raw.high[2 * s + v / 4] >> (v % 4 * 2)) & 0x03030303U) << kLow;
      if constexpr (kCodes.by_value) word = look_up(word);
      w[v] = word;
    }
  }

  // The values that four codes stand for.
  static SPECDEC_GPU std::uint32_t look_up(std::uint32_t codes) {
    std::uint32_t at = codes & 0x07070707U;  // to one nibble each
    at = (at | at >> 4) & 0x00FF00FFU;
    at = (at | at >> 8) & 0xFFFFU;
    const std::uint32_t low = pick_bytes(kWord0, kWord1, at);
    const std::uint32_t high = pick_bytes(kWord2, kWord3, at);
    const std::uint32_t upper = (codes >> 3 & 0x01010101U) * 0xFFU;
    return (low & ~upper) | (high & upper);
  }
  // What one code stands for.
  static SPECDEC_GPU int value_of(int code) {
    if constexpr (kCodes.by_value) {
      return static_cast<std::int8_t>(look_up(static_cast<std::uint32_t>(code)) & 0xFFU);
    } else if constexpr (kSigned) {
      return static_cast<std::int8_t>(code);
    } else {
      return kZeroShift < 0 ? code : code - (1 << (kZeroShift < 0 ? 0 : kZeroShift));
    }
  }
  static SPECDEC_GPU float scale_of(std::uint16_t bits) {
    if constexpr (kWideScale<Block>) {
      return from_bits(static_cast<std::uint32_t>(bits) << 16);
    } else if constexpr (kDShift > 0) {
      return half_to_float(bits) * (1.0F / static_cast<float>(1 << kDShift));
    } else {
      return half_to_float(bits);
    }
  }
};

// Blocks of 32. Header of 64 k: for g < 8, f16 d of (block 0, row g), (0, g + 8), (1, g), (1, g +
// 8); with minima, the same for m beside them: 8 or 16 bytes per g.
template <class Block>
struct Format32 : CodeFormat<Block, 64> {
  static constexpr int kHeaderBytes = kHasMin<Block> ? 128 : 64;
};

// Blocks of 256. Header: for g < 8, f16 d of rows g and g + 8, and with minima dmin of both; then
//   kPairs32   u8 scale[g][2][8] of rows g and g + 8, then mins alike
//   kSigned32  i8 scale[g][2][8] of rows g and g + 8
//   kSigned16  i8 scale[row][16]
//   kPairs16   u8 scale | min << 4, [row][16]
template <class Block>
struct Format256 : CodeFormat<Block, 256> {
  static constexpr ScaleKind kScales = Block::kCodes.scales;
  static constexpr int kSubBlock = Block::kCodes.sub_block();
  static constexpr int kScaleOffset = kHasMin<Block> ? 64 : 32;
  static constexpr int kHeaderBytes = kScaleOffset + (kScales == ScaleKind::kSigned32 ? 128 : 256);
};

// Floats: no headers. Lane 16p + r owns row r and the 8 k of parity p of a unit of 16: k = 2i + p.
// F16 and BF16 are one group of 16 bytes per lane, F32 two.
struct FormatF32 {
  static constexpr int kElementBytes = 4;
  static SPECDEC_GPU float value(const Word4* words, int i) {
    return from_bits(words[i / 4].w[i % 4]);
  }
};
struct FormatF16 {
  static constexpr int kElementBytes = 2;
  static SPECDEC_GPU float value(const Word4* words, int i) {
    return half_to_float(static_cast<std::uint16_t>(words[0].w[i / 2] >> (i % 2 * 16)));
  }
};
struct FormatBF16 {
  static constexpr int kElementBytes = 2;
  static SPECDEC_GPU float value(const Word4* words, int i) {
    return from_bits(i % 2 == 0 ? words[0].w[i / 2] << 16 : words[0].w[i / 2] & 0xFFFF0000U);
  }
};
inline constexpr int kFloatUnit = 16;

}  // namespace specdec::cuda
