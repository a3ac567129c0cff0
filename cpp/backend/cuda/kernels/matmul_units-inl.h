// What a warp does with one unit of k of 16 rows of a packed matrix. A unit has
//   kUnits.., load(g, segment, at, lane)      unit `at` of the matrix into registers
//   run(g, input, unit, tile, lane, acc)      acc += unit times the columns of the tiles
//   finish(g, acc)                            after the last unit of a piece of k
//   row(lane, i), column(lane, i)             of accumulator i of a tile, -1 where it counts
//   nothing
#pragma once

#include "backend/cuda/kernels/formats.h"
#include "backend/cuda/kernels/math-inl.h"

namespace specdec::cuda {

struct InputParams {
  const std::uint8_t* q;
  const float* d;
  const std::int32_t* sums;
  const float* x;
  std::int64_t n_k;  // padded
};

// dst = activation(y); dst += activation(y); dst = activation(dst) * y
inline constexpr int kStorePlain = 0, kStoreAdd = 1, kStoreGate = 2;

struct SegmentParams {
  const std::uint8_t* headers;
  const std::uint8_t* codes;
  const float* bias;
  float* dst;
  std::int64_t dst_stride;
  std::int64_t n_out;
  int first_tile;  // in the numbering of the grid
  int store;       // one of kStore..
  int activation;
};

// Accumulators as the tensor cores leave them: two columns of rows g and g + 8.
struct FragmentSums {
  static constexpr int kSums = 4;
  template <class G>
  static SPECDEC_GPU void finish(G&, float*) {}
  static SPECDEC_GPU int row(int lane, int i) { return lane / 4 + i / 2 * 8; }
  static SPECDEC_GPU int column(int lane, int i) { return lane % 4 * 2 + i % 2; }
};

// c += a b with the fragments of device.h.
struct TensorCores {
  static constexpr bool kIsFast = true;
  template <class G>
  static SPECDEC_GPU void k32(G& g, std::int32_t* c, const std::uint32_t* a, Word2 b) {
    g.mma_k32(c, a, b.w[0], b.w[1]);
  }
  template <class G>
  static SPECDEC_GPU void k16(G& g, std::int32_t* c, const std::uint32_t* a, std::uint32_t b) {
    g.mma_k16(c, a[0], a[1], b);
  }
};

// The same sums from four-byte dot products: each lane computes the k it owns for all 8 columns,
// then the four lanes of a row add up.
struct DotProducts {
  static constexpr bool kIsFast = false;
  template <class G>
  static SPECDEC_GPU void add(G& g, std::int32_t* c, const std::uint32_t* a, int n, Word2 b) {
    const int lane = g.thread() % 32;
    SPECDEC_UNROLL
    for (int column = 0; column < 8; ++column) {
      std::int32_t low = 0;
      std::int32_t high = 0;
      for (int i = 0; i < n; ++i) {
        const std::uint32_t word = g.shuffle(b.w[i], 4 * column + lane % 4);
        low = g.dp4a(a[2 * i], word, low);
        high = g.dp4a(a[2 * i + 1], word, high);
      }
      SPECDEC_UNROLL
      for (int mask = 1; mask <= 2; mask *= 2) {
        low += g.shuffle_xor(low, mask);
        high += g.shuffle_xor(high, mask);
      }
      if (column / 2 == lane % 4) {
        c[column % 2] += low;
        c[2 + column % 2] += high;
      }
    }
  }
  template <class G>
  static SPECDEC_GPU void k32(G& g, std::int32_t* c, const std::uint32_t* a, Word2 b) {
    add(g, c, a, 2, b);
  }
  template <class G>
  static SPECDEC_GPU void k16(G& g, std::int32_t* c, const std::uint32_t* a, std::uint32_t b) {
    add(g, c, a, 1, Word2{{b, 0}});
  }
};

// Start of a dot: minus the codes' offset times the activations' sum.
template <int zero_shift, class G>
SPECDEC_GPU void dot_start(G& g, const std::int32_t* sums, std::int32_t* c) {
  if constexpr (zero_shift < 0) {
    c[0] = c[1] = c[2] = c[3] = 0;
  } else {
    const Int2 sum = g.load(reinterpret_cast<const Int2*>(sums));
    c[0] = c[2] = -sum.v[0] * (1 << zero_shift);
    c[1] = c[3] = -sum.v[1] * (1 << zero_shift);
  }
}

SPECDEC_GPU int byte_of(std::uint32_t word, int i) {
  return static_cast<int>((word >> (8 * i)) & 0xFFU);
}
SPECDEC_GPU int signed_byte_of(std::uint32_t word, int i) {
  return static_cast<int>(static_cast<std::int8_t>((word >> (8 * i)) & 0xFFU));
}

// One unit of 64 k of a format with blocks of 32. tile: columns' tile of each accumulator.
template <class F, int kTiles, class Dot>
struct Unit32 : FragmentSums {
  static constexpr int kTileCount = kTiles;
  static constexpr int kCodeBytes = F::kCodeBytes, kHeaderBytes = F::kHeaderBytes;
  static constexpr bool kAhead = kTiles <= 2;
  static constexpr int kMinBlocks = 2;  // per processor: at most 128 registers
  typename F::Raw raw;
  Half4 d, m;

  template <class G>
  SPECDEC_GPU void load(G& g, const SegmentParams& s, std::int64_t at, int lane) {
    F::load(g, s.codes + at * F::kCodeBytes, lane, raw);
    const std::uint8_t* header =
        s.headers + at * F::kHeaderBytes + lane / 4 * (F::kHasMin ? 16 : 8);
    d = g.load_weight(reinterpret_cast<const Half4*>(header));
    if constexpr (F::kHasMin) m = g.load_weight(reinterpret_cast<const Half4*>(header + 8));
  }

  template <class G>
  SPECDEC_GPU void run(G& g, const InputParams& in, std::int64_t unit, const int* tile, int lane,
                       float (*acc)[4]) const {
    std::uint32_t w[8];
    F::template decode<0>(raw, w);
    const std::int64_t n_blocks = in.n_k / 32;
    SPECDEC_UNROLL
    for (int b = 0; b < 2; ++b) {
      const float d_low = F::scale_of(d.v[2 * b]);
      const float d_high = F::scale_of(d.v[2 * b + 1]);
      SPECDEC_UNROLL
      for (int n = 0; n < kTiles; ++n) {
        const std::int64_t block = tile[n] * n_blocks + 2 * unit + b;
        const Word2 x = g.load(reinterpret_cast<const Word2*>(in.q + (block * 32 + lane) * 8));
        const std::int64_t at = block * 8 + lane % 4 * 2;
        const Float2 da = g.load(reinterpret_cast<const Float2*>(in.d + at));
        std::int32_t c[4];
        dot_start<F::kZeroShift>(g, in.sums + at, c);
        Dot::k32(g, c, w + 4 * b, x);
        SPECDEC_UNROLL
        for (int i = 0; i < 4; ++i) {
          acc[n][i] =
              fma_of(static_cast<float>(c[i]), (i < 2 ? d_low : d_high) * da.v[i % 2], acc[n][i]);
        }
        if constexpr (F::kHasMin) {
          const Int2 sum = g.load(reinterpret_cast<const Int2*>(in.sums + at));
          SPECDEC_UNROLL
          for (int i = 0; i < 4; ++i) {
            acc[n][i] = fma_of(half_to_float(m.v[2 * b + i / 2]),
                               da.v[i % 2] * static_cast<float>(sum.v[i % 2]), acc[n][i]);
          }
        }
      }
    }
  }
};

// One unit of a K-quant: integers over 256 k, then one or two multiply-adds.
template <class F, int kTiles, class Dot>
struct Unit256 : FragmentSums {
  static constexpr int kTileCount = kTiles;
  static constexpr int kCodeBytes = F::kCodeBytes, kHeaderBytes = F::kHeaderBytes;
  static constexpr bool kAhead = false;  // two units do not fit the registers
  static constexpr int kMinBlocks = kTiles == 1 && Dot::kIsFast ? 2 : 1;
  typename F::Raw raw;
  Word2 d;          // f16 d of both rows, dmin of both
  Word4 scales[2];  // of 32: scales and mins of both rows; else all scales of each row

  template <class G>
  SPECDEC_GPU void load(G& g, const SegmentParams& s, std::int64_t at, int lane) {
    F::load(g, s.codes + at * F::kCodeBytes, lane, raw);
    const std::uint8_t* header = s.headers + at * F::kHeaderBytes;
    const int row = lane / 4;
    if constexpr (F::kHasMin) {
      d = g.load_weight(reinterpret_cast<const Word2*>(header + row * 8));
    } else {
      d.w[0] = g.load_weight(reinterpret_cast<const std::uint32_t*>(header + row * 4));
      d.w[1] = 0;
    }
    const auto* words = reinterpret_cast<const Word4*>(header + F::kScaleOffset);
    scales[0] = g.load_weight(words + row);
    if constexpr (F::kScales != ScaleKind::kSigned32) scales[1] = g.load_weight(words + row + 8);
  }

  // Scale of sub-block s of row `high` (0: g, 1: g + 8).
  SPECDEC_GPU int scale(int s, int high) const {
    if constexpr (F::kScales == ScaleKind::kPairs32)
      return byte_of(scales[0].w[high * 2 + s / 4], s % 4);
    if constexpr (F::kScales == ScaleKind::kSigned32)
      return signed_byte_of(scales[0].w[high * 2 + s / 4], s % 4);
    if constexpr (F::kScales == ScaleKind::kSigned16)
      return signed_byte_of(scales[high].w[s / 4], s % 4);
    return byte_of(scales[high].w[s / 4], s % 4) & 15;
  }
  SPECDEC_GPU int minimum(int s, int high) const {
    if constexpr (F::kScales == ScaleKind::kPairs32)
      return byte_of(scales[1].w[high * 2 + s / 4], s % 4);
    return byte_of(scales[high].w[s / 4], s % 4) >> 4;
  }

  template <int s, class G>
  SPECDEC_GPU void add_64(G& g, const InputParams& in, std::int64_t unit, const int* tile, int lane,
                          std::int32_t (*sum)[4]) const {
    std::uint32_t w[8];
    F::template decode<s>(raw, w);
    const std::int64_t n_blocks = in.n_k / 32;
    SPECDEC_UNROLL
    for (int b = 2 * s; b < 2 * s + 2; ++b) {
      SPECDEC_UNROLL
      for (int n = 0; n < kTiles; ++n) {
        const std::int64_t block = tile[n] * n_blocks + 8 * unit + b;
        const Word2 x = g.load(reinterpret_cast<const Word2*>(in.q + (block * 32 + lane) * 8));
        const std::int32_t* sums = in.sums + block * 16 + lane % 4 * 2;
        std::int32_t c[4];
        if constexpr (F::kSubBlock == 32) {
          static_assert(F::kZeroShift < 0);
          c[0] = c[1] = c[2] = c[3] = 0;
          Dot::k32(g, c, w + b % 2 * 4, x);
          SPECDEC_UNROLL
          for (int i = 0; i < 4; ++i) sum[n][i] += scale(b, i / 2) * c[i];
        } else {
          SPECDEC_UNROLL
          for (int h = 0; h < 2; ++h) {
            dot_start<F::kZeroShift>(g, sums + 8 * h, c);
            Dot::k16(g, c, w + b % 2 * 4 + 2 * h, x.w[h]);
            SPECDEC_UNROLL
            for (int i = 0; i < 4; ++i) sum[n][i] += scale(2 * b + h, i / 2) * c[i];
          }
        }
      }
    }
  }

  template <class G>
  SPECDEC_GPU void run(G& g, const InputParams& in, std::int64_t unit, const int* tile, int lane,
                       float (*acc)[4]) const {
    std::int32_t sum[kTiles][4] = {};
    add_64<0>(g, in, unit, tile, lane, sum);
    add_64<1>(g, in, unit, tile, lane, sum);
    add_64<2>(g, in, unit, tile, lane, sum);
    add_64<3>(g, in, unit, tile, lane, sum);
    const std::int64_t n_super = in.n_k / 256;
    float da[kTiles][2];
    SPECDEC_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      const Float2 two = g.load(
          reinterpret_cast<const Float2*>(in.d + (tile[n] * n_super + unit) * 8 + lane % 4 * 2));
      SPECDEC_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float dw = F::scale_of(static_cast<std::uint16_t>(d.w[0] >> (i / 2 * 16)));
        acc[n][i] = fma_of(static_cast<float>(sum[n][i]), dw * two.v[i % 2], acc[n][i]);
        sum[n][i] = 0;
      }
      da[n][0] = two.v[0];
      da[n][1] = two.v[1];
    }
    if constexpr (F::kHasMin) {
      SPECDEC_UNROLL
      for (int s = 0; s < 256 / F::kSubBlock; ++s) {
        SPECDEC_UNROLL
        for (int n = 0; n < kTiles; ++n) {
          const Int2 a = sub_sum(g, in, (tile[n] * n_super + unit) * 16, s, lane);
          SPECDEC_UNROLL
          for (int i = 0; i < 4; ++i) sum[n][i] += minimum(s, i / 2) * a.v[i % 2];
        }
      }
      SPECDEC_UNROLL
      for (int n = 0; n < kTiles; ++n) {
        SPECDEC_UNROLL
        for (int i = 0; i < 4; ++i) {
          const float dmin = half_to_float(static_cast<std::uint16_t>(d.w[1] >> (i / 2 * 16)));
          acc[n][i] = fma_of(-static_cast<float>(sum[n][i]), dmin * da[n][i % 2], acc[n][i]);
        }
      }
    }
  }

  // Sum of the activations of sub-block s, of the lane's two columns.
  template <class G>
  static SPECDEC_GPU Int2 sub_sum(G& g, const InputParams& in, std::int64_t first, int s,
                                  int lane) {
    if constexpr (F::kSubBlock == 16)
      return g.load(reinterpret_cast<const Int2*>(in.sums + (first + s) * 8 + lane % 4 * 2));
    const std::int32_t* at = in.sums + (first + 2 * s) * 8 + lane % 4 * 2;
    const Int2 a = g.load(reinterpret_cast<const Int2*>(at));
    const Int2 b = g.load(reinterpret_cast<const Int2*>(at + 8));
    return Int2{{a.v[0] + b.v[0], a.v[1] + b.v[1]}};
  }
};

}  // namespace specdec::cuda
