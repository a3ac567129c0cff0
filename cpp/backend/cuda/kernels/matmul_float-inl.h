// Products with float weights: lane 16p + r has row r and the k of parity p, in one chain of
// multiply-adds per column; the two parities are added at the end of a piece of k, as on the CPU.
// kColumns: 8, or of the only tile no more than there are rows of x, which changes no bits.
#pragma once

#include "backend/cuda/kernels/matmul_units-inl.h"

namespace specdec::cuda {

template <class F, int kTiles, int kColumns = 8>
struct FloatUnit {
  static_assert(kColumns == 8 || (kTiles == 1 && (kColumns == 1 || kColumns == 4)));
  static constexpr int kTileCount = kTiles;
  static constexpr int kCodeBytes = 16 * kFloatUnit * F::kElementBytes, kHeaderBytes = 0;
  static constexpr bool kAhead = kTiles <= 2;
  static constexpr int kMinBlocks = kTiles <= 2 ? 2 : 1;
  static constexpr int kSums = kColumns;
  static constexpr int kWords = F::kElementBytes / 2;  // groups of 16 bytes per lane
  Word4 words[kWords];

  // Lane 16p + r: the columns of row r.
  template <class G>
  static SPECDEC_GPU void finish(G& g, float* acc) {
    SPECDEC_UNROLL
    for (int c = 0; c < kColumns; ++c) acc[c] += g.shuffle_xor(acc[c], 16);
  }
  static SPECDEC_GPU int row(int lane, int) { return lane < 16 ? lane : -1; }
  static SPECDEC_GPU int column(int, int i) { return i; }

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
                       float (*acc)[kColumns]) const {
    SPECDEC_UNROLL
    for (int i = 0; i < 8; ++i) {
      const float w = F::value(words, i);
      const std::int64_t k = unit * kFloatUnit + 2 * i + lane / 16;
      SPECDEC_UNROLL
      for (int n = 0; n < kTiles; ++n) {
        const float* x = in.x + (tile[n] * in.n_k + k) * 8;
        if constexpr (kColumns == 1) acc[n][0] = fma_of(w, g.load(x), acc[n][0]);
        SPECDEC_UNROLL
        for (int half = 0; half < kColumns / 4; ++half) {
          const Float4 four = g.load(reinterpret_cast<const Float4*>(x) + half);
          SPECDEC_UNROLL
          for (int c = 0; c < 4; ++c)
            acc[n][4 * half + c] = fma_of(w, four.v[c], acc[n][4 * half + c]);
        }
      }
    }
  }
};

}  // namespace specdec::cuda
