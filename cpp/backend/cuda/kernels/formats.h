// Packed weights on the device, and how a lane decodes them.
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

namespace specdec::cuda {

// low_bits, high_bits: bits per code in the main plane and in the second one. zero_shift: codes
// stand for q - 2^zero_shift; -1: no offset.
template <int low_bits, int high_bits, int zero_shift, bool has_min, int unit>
struct CodeFormat {
  static constexpr int kLow = low_bits, kHigh = high_bits, kZeroShift = zero_shift, kUnit = unit;
  static constexpr bool kHasMin = has_min;
  static constexpr int kBlocks64 = unit / 64;
  static constexpr int kLowWords = kBlocks64 * kLow;  // per lane and unit
  static constexpr int kHighWords = kBlocks64 * kHigh;
  static constexpr int kCodeBytes = (kLowWords + kHighWords) * 128;

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
      w[v] = word;
    }
  }
};

// Blocks of 32. Header of 64 k: for g < 8, f16 d of (block 0, row g), (0, g + 8), (1, g), (1, g +
// 8); with minima, the same for m beside them: 8 or 16 bytes per g.
template <int low, int high, int zero_shift, bool has_min>
struct Format32 : CodeFormat<low, high, zero_shift, has_min, 64> {
  static constexpr int kHeaderBytes = has_min ? 128 : 64;
};
using FormatQ4_0 = Format32<4, 0, 3, false>;
using FormatQ4_1 = Format32<4, 0, -1, true>;
using FormatQ5_0 = Format32<4, 1, 4, false>;
using FormatQ5_1 = Format32<4, 1, -1, true>;
using FormatQ8_0 = Format32<8, 0, -1, false>;  // signed codes

// Blocks of 256. Header: for g < 8, f16 d of rows g and g + 8, and with minima dmin of both; then
//   kScales32  (Q4_K, Q5_K)  u8 scale[g][2][8] of rows g and g + 8, then mins alike
//   kScales16  (Q3_K, Q6_K)  i8 scale[row][16]
//   kPairs16   (Q2_K)        u8 scale | min << 4, [row][16]
enum class ScaleKind { kScales32, kScales16, kPairs16 };

template <int low, int high, int zero_shift, bool has_min, ScaleKind scales>
struct Format256 : CodeFormat<low, high, zero_shift, has_min, 256> {
  static constexpr ScaleKind kScales = scales;
  static constexpr int kSubBlock = scales == ScaleKind::kScales32 ? 32 : 16;
  static constexpr int kScaleOffset = has_min ? 64 : 32;
  static constexpr int kHeaderBytes = kScaleOffset + 256;
};
using FormatQ2_K = Format256<2, 0, -1, true, ScaleKind::kPairs16>;
using FormatQ3_K = Format256<2, 1, 2, false, ScaleKind::kScales16>;
using FormatQ4_K = Format256<4, 0, -1, true, ScaleKind::kScales32>;
using FormatQ5_K = Format256<4, 1, -1, true, ScaleKind::kScales32>;
using FormatQ6_K = Format256<4, 2, 5, false, ScaleKind::kScales16>;

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
