// Products with float weights: lane 16p + r has row r and the k of parity p, in one chain of
// multiply-adds per column; the two parities are added at the end of a piece of k, as on the CPU.
#pragma once

#include "backend/cuda/kernels/matmul-inl.h"

namespace specdec::cuda {

template <class F, int kTiles>
struct FloatUnit {
  static constexpr int kCodeBytes = 16 * kFloatUnit * F::kElementBytes;
  static constexpr int kWords = F::kElementBytes / 2;  // groups of 16 bytes per lane
  Word4 words[kWords];

  template <class G>
  SPECDEC_GPU void load(G& g, const SegmentParams& s, std::int64_t at, int lane) {
    SPECDEC_UNROLL
    for (int i = 0; i < kWords; ++i) {
      words[i] = g.load_weight(
          reinterpret_cast<const Word4*>(s.codes + at * kCodeBytes + i * 512 + lane * 16));
    }
  }

  template <class G>
  SPECDEC_GPU void run(G& g, const InputParams& in, std::int64_t unit, const int* tile, int lane,
                       float (*acc)[8]) const {
    SPECDEC_UNROLL
    for (int i = 0; i < 8; ++i) {
      const float w = F::value(words, i);
      const std::int64_t k = unit * kFloatUnit + 2 * i + lane / 16;
      SPECDEC_UNROLL
      for (int n = 0; n < kTiles; ++n) {
        const auto* x = reinterpret_cast<const Float4*>(in.x + (tile[n] * in.n_k + k) * 8);
        SPECDEC_UNROLL
        for (int half = 0; half < 2; ++half) {
          const Float4 four = g.load(x + half);
          SPECDEC_UNROLL
          for (int c = 0; c < 4; ++c)
            acc[n][4 * half + c] = fma_of(w, four.v[c], acc[n][4 * half + c]);
        }
      }
    }
  }
};

template <class F, int kTileCount>
struct FloatMatmul {
  using Params = MatmulParams;
  static constexpr int kMaxThreads = 256;
  static constexpr int kMinBlocks = kTileCount <= 2 ? 2 : 1;
  static constexpr int kTiles = kTileCount;

  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& p) {
    const Place place = find_place(g, p);
    if (is_padding(p, place)) return;
    const SegmentParams& s = p.segments[place.segment];
    int tile[kTiles];
    find_columns<kTiles>(p, place.group, tile);
    float acc[kTiles][8] = {};
    const int lane = g.thread() % 32;
    const int first = g.thread() / 32 * p.units_per_slice;
    const int end = smaller(first + p.units_per_slice, p.n_units);
    const std::int64_t base = std::int64_t{place.tile} * p.n_units;
    for (int u = first; u < end; ++u) {
      FloatUnit<F, kTiles> unit;
      unit.load(g, s, base + u, lane);
      unit.run(g, p.input, u, tile, lane, acc);
    }
    const auto partial = g.template shared<float>(0);
    const int at = g.thread() / 32 * kTiles * 128;
    SPECDEC_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      SPECDEC_UNROLL
      for (int c = 0; c < 8; ++c) {
        const float sum = acc[n][c] + g.shuffle_xor(acc[n][c], 16);
        if (lane < 16) partial.set(at + (8 * n + c) * 16 + lane, sum);
      }
    }
    g.sync();
    write_tile<kTiles>(g, p, place, partial);
  }
};

}  // namespace specdec::cuda
