// Products of packed weights and packed inputs: 16 rows of the matrix (a tile) times kTiles * 8
// rows of x. Weights are decoded once for all columns; columns share nothing else, so a column's
// bits depend on nothing but itself. A dot product is cut into pieces of k, which are added in
// ascending order; two kernels with the same bits differ in who computes them:
//   sliced   one block per tile, one warp per piece or few: for matrices that are few tiles
//   wide     one warp per tile, all pieces one after the other: for many tiles
#pragma once

#include "backend/cuda/kernels/matmul_units-inl.h"

namespace specdec::cuda {

inline constexpr int kWideWarps = 8;  // of a block
// A processor has registers for 16 warps of 128.
template <class Unit>
inline constexpr int kSlicedWarps = Unit::kMinBlocks == 2 ? 16 : 8;  // at most

struct MatmulParams {
  InputParams input;
  int n_rows;       // of x
  int n_col_tiles;  // of the input
  int n_units;      // of k
  int units_per_slice;
  int n_slices;
  int slices_per_warp;
  int n_tiles;  // in the numbering of the grid
  // Tiles that are computed at a time, about: weights of the one so many further on are asked for
  // in advance.
  int ahead;
  // Tiles of the matrix to compute, or null for all. Ones behind its last are left out: a list may
  // be padded with them.
  const std::int32_t* tiles;
  // Of a stack of matrices, the one of each tile of columns, -1: of none. Null: there is but one.
  const std::int32_t* experts;
  int expert_tiles;  // of one matrix of a stack
  int n_segments;
  SegmentParams segments[4];  // gated: the gate and up
};

struct Place {
  int segment;
  int tile;         // of the matrix
  int packed_tile;  // of the stack
  int dst_tile;     // where its rows go
};

// Whether the work of a block is known before the kernels before this one are through.
SPECDEC_GPU bool is_listed(const MatmulParams& p) {
  return p.tiles != nullptr || p.experts != nullptr;
}

// at: a tile of the grid. Its packed_tile is below 0 when there is nothing to do for the block's
// columns.
template <class G>
SPECDEC_GPU Place find_place(G& g, const MatmulParams& p, int at) {
  Place out;
  out.segment = 0;
  for (int i = 1; i < p.n_segments; ++i) {
    if (at >= p.segments[i].first_tile) out.segment = i;
  }
  out.dst_tile = at - p.segments[out.segment].first_tile;
  out.tile = p.tiles == nullptr ? out.dst_tile : g.load(p.tiles + out.dst_tile);
  out.packed_tile = out.tile;
  if (p.experts != nullptr) {
    const int expert = g.load(p.experts + g.block());
    out.packed_tile = expert < 0 ? -1 : out.tile + expert * p.expert_tiles;
  }
  return out;
}

SPECDEC_GPU bool is_padding(const MatmulParams& p, const Place& place) {
  return place.packed_tile < 0 || std::int64_t{place.tile} * 16 >= p.segments[place.segment].n_out;
}

template <int kTiles>
SPECDEC_GPU void find_columns(const MatmulParams& p, int group, int* tile) {
  SPECDEC_UNROLL
  for (int n = 0; n < kTiles; ++n) tile[n] = smaller(group * kTiles + n, p.n_col_tiles - 1);
}

// Units that are asked for together: some 2 KiB, which a warp does at once.
template <class Unit>
inline constexpr int kUnitsAhead =
    Unit::kCodeBytes + Unit::kHeaderBytes >= 2048 ? 1
                                                  : 2048 / (Unit::kCodeBytes + Unit::kHeaderBytes);

// Asks for units [at, at + n) of a matrix, at most kUnitsAhead.
template <class Unit, class G>
SPECDEC_GPU void prefetch_some(G& g, const SegmentParams& s, std::int64_t at, int n) {
  static_assert(kUnitsAhead<Unit> * Unit::kCodeBytes <= 32 * 128);
  const int line = g.thread() % 32 * 128;
  if (line < n * Unit::kCodeBytes) g.prefetch(s.codes + at * Unit::kCodeBytes + line);
  if (line < n * Unit::kHeaderBytes) g.prefetch(s.headers + at * Unit::kHeaderBytes + line);
}
// Any number.
template <class Unit, class G>
SPECDEC_GPU void prefetch_units(G& g, const SegmentParams& s, std::int64_t at, int n) {
  constexpr int kAsk = kUnitsAhead<Unit>;
  SPECDEC_NO_UNROLL
  for (int i = 0; i < n; i += kAsk) prefetch_some<Unit>(g, s, at + i, smaller(kAsk, n - i));
}

// The units [first, end) of a row of tiles, `unit` being loaded with the first. kGroups: whether
// the units of later groups have still to be asked for. At the end of every piece of k, acc goes to
// done(piece).
template <class Unit, bool kGroups, class G, class Done>
SPECDEC_GPU void run_units(G& g, const MatmulParams& p, const SegmentParams& s, std::int64_t base,
                           int first, int end, const int* tile, Unit& unit, const Done& done) {
  constexpr int kTiles = Unit::kTileCount;
  constexpr int kAsk = kUnitsAhead<Unit>;
  const int lane = g.thread() % 32;
  int next_end = smaller(first + p.units_per_slice, end);
  float acc[kTiles][Unit::kSums] = {};
  for (int u = first; u < end; ++u) {
    if (kGroups && (u - first) % kAsk == 0 && u + kAsk < end)
      prefetch_some<Unit>(g, s, base + u + kAsk, smaller(kAsk, end - u - kAsk));
    if constexpr (Unit::kAhead) {
      const Unit now = unit;
      if (u + 1 < end) unit.load(g, s, base + u + 1, lane);
      now.run(g, p.input, u, tile, lane, acc);
    } else {
      if (u > first) unit.load(g, s, base + u, lane);
      unit.run(g, p.input, u, tile, lane, acc);
    }
    if (u + 1 < next_end) continue;
    next_end = smaller(next_end + p.units_per_slice, end);
    SPECDEC_UNROLL
    for (int n = 0; n < kTiles; ++n) Unit::finish(g, acc[n]);
    done(acc);
    SPECDEC_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      SPECDEC_UNROLL
      for (int i = 0; i < Unit::kSums; ++i) acc[n][i] = 0;
    }
  }
}

// Sums of a piece into shared memory, as [kTiles * 8 columns][16 rows] from `first` on.
template <class Unit, class Shared>
SPECDEC_GPU void put_sums(const Shared& partial, int first, int lane,
                          const float (*acc)[Unit::kSums]) {
  SPECDEC_UNROLL
  for (int n = 0; n < Unit::kTileCount; ++n) {
    SPECDEC_UNROLL
    for (int i = 0; i < Unit::kSums; ++i) {
      const int row = Unit::row(lane, i);
      if (row >= 0) partial.set(first + (8 * n + Unit::column(lane, i)) * 16 + row, acc[n][i]);
    }
  }
}

// Sum over pieces of one value.
template <class Shared>
SPECDEC_GPU float sum_pieces(const Shared& partial, int n_pieces, int n_values, int at) {
  float sum = partial.get(at);
  for (int w = 1; w < n_pieces; ++w) sum += partial.get(w * n_values + at);
  return sum;
}

// Values first, first + step, .. of a tile, whose pieces lie in shared memory from `base` on: of
// the matrix, then of the second one of a gated pair.
template <int kTiles, int kParts, class G, class Shared>
SPECDEC_GPU void write_tile(G& g, const MatmulParams& p, const Place& place, int group,
                            const Shared& partial, int base, int n_pieces, int first, int step) {
  constexpr int kValues = kTiles * 128;
  const SegmentParams& s = p.segments[place.segment];
  for (int at = first; at < kValues; at += step) {
    const int column = group * kTiles * 8 + at / 16;
    const std::int64_t row = std::int64_t{place.tile} * 16 + at % 16;
    if (column >= p.n_rows || row >= s.n_out) continue;
    float y = sum_pieces(partial, n_pieces, kValues, base + at);
    float* dst = s.dst + column * s.dst_stride + std::int64_t{place.dst_tile} * 16 + at % 16;
    if constexpr (kParts == 2) {
      y = activate(s.activation, y) *
          sum_pieces(partial, n_pieces, kValues, base + n_pieces * kValues + at);
    } else {
      if (s.bias != nullptr) y += g.load(s.bias + row);
      if (s.store == kStoreGate) {
        y = activate(s.activation, g.load(static_cast<const float*>(dst))) * y;
      } else {
        y = activate(s.activation, y);
        if (s.store == kStoreAdd) y = g.load(static_cast<const float*>(dst)) + y;
      }
    }
    g.store(dst, y);
  }
}

// grid: groups of columns x tiles; kParts 2: both matrices of a gated pair.
template <class Unit, int kParts>
struct SlicedMatmul {
  using Params = MatmulParams;
  static constexpr bool kWaits = true;
  static constexpr int kMaxThreads = 32 * kSlicedWarps<Unit>;
  static constexpr int kMinBlocks = 1;

  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& p) {
    constexpr int kTiles = Unit::kTileCount;
    const bool listed = is_listed(p);
    if (listed) g.wait_for_previous();
    const Place place = find_place(g, p, g.block_y());
    if (is_padding(p, place)) return;  // of a list only
    const int lane = g.thread() % 32;
    const int first_slice = g.thread() / 32 * p.slices_per_warp;
    const int first = first_slice * p.units_per_slice;
    const int end = smaller(first + p.slices_per_warp * p.units_per_slice, p.n_units);
    const std::int64_t base = std::int64_t{place.packed_tile} * p.n_units;

    Unit unit;
    unit.load(g, p.segments[place.segment], base + first, lane);
    prefetch_units<Unit>(g, p.segments[place.segment], base + first + 1, end - first - 1);
    if constexpr (kParts == 2) prefetch_units<Unit>(g, p.segments[1], base + first, end - first);
    if (!listed && g.block() == 0 && g.block_y() + p.ahead < p.n_tiles) {
      const Place later = find_place(g, p, g.block_y() + p.ahead);
      const std::int64_t at = std::int64_t{later.tile} * p.n_units + first;
      SPECDEC_UNROLL
      for (int part = 0; part < kParts; ++part)
        prefetch_units<Unit>(g, p.segments[kParts == 2 ? part : later.segment], at, end - first);
    }
    if (!listed) g.wait_for_previous();

    int tile[kTiles];
    find_columns<kTiles>(p, g.block(), tile);
    const auto partial = g.template shared<float>(0);
    SPECDEC_UNROLL
    for (int part = 0; part < kParts; ++part) {
      const SegmentParams& s = p.segments[kParts == 2 ? part : place.segment];
      if (part > 0) unit.load(g, s, base + first, lane);
      int slice = part * p.n_slices + first_slice;
      run_units<Unit, false>(g, p, s, base, first, end, tile, unit,
                             [&](const float (*acc)[Unit::kSums]) {
                               put_sums<Unit>(partial, slice++ * kTiles * 128, lane, acc);
                             });
    }
    g.sync();
    write_tile<kTiles, kParts>(g, p, place, g.block(), partial, 0, p.n_slices, g.thread(),
                               g.n_threads());
  }
};

// grid: groups of columns x tiles by the number of warps of a block.
template <class Unit, int kParts>
struct WideMatmul {
  using Params = MatmulParams;
  static constexpr bool kWaits = true;
  static constexpr int kMaxThreads = 32 * kWideWarps;
  static constexpr int kMinBlocks = Unit::kMinBlocks;

  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& p) {
    constexpr int kTiles = Unit::kTileCount;
    const bool listed = is_listed(p);
    if (listed) g.wait_for_previous();
    const int lane = g.thread() % 32;
    const int warp = g.thread() / 32;
    const int at = g.block_y() * (g.n_threads() / 32) + warp;
    const Place place = find_place(g, p, smaller(at, p.n_tiles - 1));
    const bool computes = at < p.n_tiles && !is_padding(p, place);
    const std::int64_t base = std::int64_t{place.packed_tile} * p.n_units;

    Unit unit;
    if (computes) start(g, p, place, base, at, listed, unit);
    if (!listed) g.wait_for_previous();

    int tile[kTiles];
    find_columns<kTiles>(p, g.block(), tile);
    const auto partial = g.template shared<float>(0);
    const int mine = warp * kParts * kTiles * 128;
    SPECDEC_UNROLL
    for (int part = 0; computes && part < kParts; ++part) {
      const SegmentParams& s = p.segments[kParts == 2 ? part : place.segment];
      if (part > 0) unit.load(g, s, base, lane);
      float sum[kTiles][Unit::kSums] = {};
      bool first_piece = true;
      run_units<Unit, true>(g, p, s, base, 0, p.n_units, tile, unit,
                            [&](const float (*acc)[Unit::kSums]) {
                              SPECDEC_UNROLL
                              for (int n = 0; n < kTiles; ++n) {
                                SPECDEC_UNROLL
                                for (int i = 0; i < Unit::kSums; ++i)
                                  sum[n][i] = first_piece ? acc[n][i] : sum[n][i] + acc[n][i];
                              }
                              first_piece = false;
                            });
      put_sums<Unit>(partial, mine + part * kTiles * 128, lane, sum);
    }
    g.sync();
    if (computes) write_tile<kTiles, kParts>(g, p, place, g.block(), partial, mine, 1, lane, 32);
  }

 private:
  // Loads the first unit, asks for those that come next and for the beginning of a later tile.
  template <class G>
  static SPECDEC_GPU void start(G& g, const Params& p, const Place& place, std::int64_t base,
                                int at, bool listed, Unit& unit) {
    const int n = smaller(kUnitsAhead<Unit>, p.n_units);
    unit.load(g, p.segments[place.segment], base, g.thread() % 32);
    prefetch_some<Unit>(g, p.segments[place.segment], base + 1, n - 1);
    if constexpr (kParts == 2) prefetch_some<Unit>(g, p.segments[1], base, n);
    if (listed || g.block() != 0 || at + p.ahead >= p.n_tiles) return;
    const Place later = find_place(g, p, at + p.ahead);
    prefetch_some<Unit>(g, p.segments[later.segment], std::int64_t{later.tile} * p.n_units, n);
  }
};

}  // namespace specdec::cuda
