// Rows of packed matrices, and tokens from one pass to the next.
#pragma once

#include "backend/cuda/kernels/formats.h"
#include "backend/cuda/kernels/math-inl.h"

namespace specdec::cuda {

struct TakeTokensParams {
  std::int32_t* tokens;
  const std::int32_t* picks;
  const std::int32_t* found;  // TopToken pairs: token, bits of the logit
  int n_rows;
};

// grid: pieces of rows
struct TakeTokens {
  using Params = TakeTokensParams;
  static constexpr int kMaxThreads = 32;
  static constexpr int kMinBlocks = 1;
  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& p) {
    const int row = g.block() * g.n_threads() + g.thread();
    if (row >= p.n_rows) return;
    const std::int32_t pick = g.load(p.picks + row);
    if (pick >= 0) g.store(p.tokens + row, g.load(p.found + std::int64_t{pick} * 2));
  }
};

struct EmbedParams {
  const std::uint8_t* headers;
  const std::uint8_t* codes;
  const std::int32_t* tokens;
  std::int64_t n_out, n_in;
  int n_units;
  float* dst;
  std::int64_t dst_stride;
  float scale;
};

// Bits of one code from a plane of `bits` bits per code. v: its word of 8, s: its 64 k.
template <int bits, class G>
SPECDEC_GPU int plane_code(G& g, const std::uint8_t* plane, int n_words, int lane, int s, int v,
                           int byte) {
  const int index = bits == 8   ? 8 * s + v
                    : bits == 4 ? 4 * s + v % 4
                    : bits == 2 ? 2 * s + v / 4
                                : s;
  const int shift = bits == 8 ? 0 : bits == 4 ? v / 4 * 4 : bits == 2 ? v % 4 * 2 : v;
  const int group = n_words % 4 == 0 ? 4 : 1;
  const std::uint8_t* at =
      plane + index / group * group * 128 + lane * group * 4 + index % group * 4;
  const std::uint32_t word = g.load(reinterpret_cast<const std::uint32_t*>(at));
  return static_cast<int>((word >> (8 * byte + shift)) & ((1U << bits) - 1U));
}

// Code of (row r, k within the unit).
template <class F, class G>
SPECDEC_GPU int code_of(G& g, const std::uint8_t* codes, int r, int k) {
  const int s = k / 64;
  const int lane = r % 8 * 4 + k % 16 / 4;
  const int v = k / 32 % 2 * 4 + k / 16 % 2 * 2 + r / 8;
  int code = plane_code<F::kLow>(g, codes, F::kLowWords, lane, s, v, k % 4);
  if constexpr (F::kHigh > 0) {
    code |= plane_code<F::kHigh>(g, codes + F::kLowWords * 128, F::kHighWords, lane, s, v, k % 4)
            << F::kLow;
  }
  return code;
}

template <class G>
SPECDEC_GPU float load_half(G& g, const std::uint8_t* p) {
  return half_to_float(g.load(reinterpret_cast<const std::uint16_t*>(p)));
}

template <class F>
struct Row32 {
  static constexpr int kUnit = 64;
  template <class G>
  static SPECDEC_GPU float weight(G& g, const std::uint8_t* headers, const std::uint8_t* codes,
                                  std::int64_t unit, int r, int k) {
    const std::uint8_t* header =
        headers + unit * F::kHeaderBytes + r % 8 * (F::kHasMin ? 16 : 8) + k / 32 * 4 + r / 8 * 2;
    const float d = F::scale_of(g.load(reinterpret_cast<const std::uint16_t*>(header)));
    const auto q =
        static_cast<float>(F::value_of(code_of<F>(g, codes + unit * F::kCodeBytes, r, k)));
    if constexpr (F::kHasMin) return d * q + load_half(g, header + 8);
    return d * q;
  }
};

template <class F>
struct Row256 {
  static constexpr int kUnit = 256;
  template <class G>
  static SPECDEC_GPU float weight(G& g, const std::uint8_t* headers, const std::uint8_t* codes,
                                  std::int64_t unit, int r, int k) {
    const std::uint8_t* header = headers + unit * F::kHeaderBytes;
    const std::uint8_t* pair = header + r % 8 * (F::kHasMin ? 8 : 4) + r / 8 * 2;
    const float d = F::scale_of(g.load(reinterpret_cast<const std::uint16_t*>(pair)));
    const std::uint8_t* scales = header + F::kScaleOffset;
    const auto q =
        static_cast<float>(F::value_of(code_of<F>(g, codes + unit * F::kCodeBytes, r, k)));
    if constexpr (F::kScales == ScaleKind::kSigned32) {
      const int byte = g.load(scales + r % 8 * 16 + r / 8 * 8 + k / 32);
      return d * static_cast<float>(static_cast<std::int8_t>(byte)) * q;
    } else if constexpr (F::kScales == ScaleKind::kPairs32) {
      const std::uint8_t* at = scales + r % 8 * 16 + r / 8 * 8 + k / 32;
      const auto scale = static_cast<float>(g.load(at));
      const auto minimum = static_cast<float>(g.load(at + 128));
      return d * scale * q - load_half(g, pair + 4) * minimum;
    } else {
      const int byte = g.load(scales + r * 16 + k / 16);
      if constexpr (F::kScales == ScaleKind::kPairs16) {
        return d * static_cast<float>(byte & 15) * q -
               load_half(g, pair + 4) * static_cast<float>(byte >> 4);
      }
      return d * static_cast<float>(static_cast<std::int8_t>(byte)) * q;
    }
  }
};

template <class F>
struct RowFloat {
  static constexpr int kUnit = kFloatUnit;
  template <class G>
  static SPECDEC_GPU float weight(G& g, const std::uint8_t*, const std::uint8_t* codes,
                                  std::int64_t unit, int r, int k) {
    const int group = 16 / F::kElementBytes;
    const int i = k / 2;
    const auto* words =
        reinterpret_cast<const Word4*>(codes + unit * 16 * kFloatUnit * F::kElementBytes +
                                       i / group * 512 + (16 * (k % 2) + r) * 16);
    const Word4 word = g.load(words);
    return F::value(&word, i % group);
  }
};

// grid: pieces of k x rows
template <class Row>
struct Embed {
  using Params = EmbedParams;
  static constexpr int kMaxThreads = 256;
  static constexpr int kMinBlocks = 2;
  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& p) {
    const std::int64_t k = std::int64_t{g.block()} * g.n_threads() + g.thread();
    if (k >= p.n_in) return;
    // What a head found may be no token; its row is read by nobody, but must be somewhere.
    int token = g.load(p.tokens + g.block_y());
    if (token < 0 || token >= p.n_out) token = 0;
    const std::int64_t unit = std::int64_t{token / 16} * p.n_units + k / Row::kUnit;
    g.store(p.dst + g.block_y() * p.dst_stride + k,
            p.scale * Row::weight(g, p.headers, p.codes, unit, token % 16,
                                  static_cast<int>(k % Row::kUnit)));
  }
};

}  // namespace specdec::cuda
