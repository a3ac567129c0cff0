// From the arguments of launch.h to kernels and grids. L launches: L::launch<Body>(params, grid x,
// grid y, threads, bytes of shared memory, stream), L::matmul(launch, stream), L::n_processors().
#pragma once

#include <algorithm>
#include <bit>

#include "backend/cuda/kernels/elementwise-inl.h"
#include "backend/cuda/kernels/experts-inl.h"
#include "backend/cuda/kernels/head-inl.h"
#include "backend/cuda/kernels/layout.h"
#include "backend/cuda/kernels/matmul_launch.h"
#include "backend/cuda/kernels/pack_input-inl.h"
#include "backend/cuda/kernels/rope_store-inl.h"
#include "backend/cuda/kernels/scratch.h"

namespace specdec::cuda {

static_assert(kActivationSilu == static_cast<int>(Activation::kSilu));
static_assert(kActivationGelu == static_cast<int>(Activation::kGeluErf));
static_assert(kActivationGeluTanh == static_cast<int>(Activation::kGeluTanh));
static_assert(kCacheF16 == static_cast<int>(KvType::kF16));
static_assert(kCacheQ8 == static_cast<int>(KvType::kQ8_0));
static_assert(kChunk == kKvChunk && kKvLane == 16 && kHeadBlock == kRowsPerTile);
static_assert(kScanLogits == kScanColumns && kSumLogits == kSumColumns);
static_assert(sizeof(TopToken) == 8);

inline constexpr int kPiece = 256;  // elements per block of elementwise kernels

[[nodiscard]] inline int pieces(std::int64_t n) { return static_cast<int>(div_up(n, kPiece)); }

[[nodiscard]] inline CacheParams cache_params(const KvLayout& layout, std::byte* const* pages,
                                              std::size_t page_offset) {
  CacheParams out{};
  out.pages = pages;
  out.page_offset = static_cast<std::int64_t>(page_offset);
  out.head_bytes = static_cast<std::int64_t>(layout.head_bytes());
  out.v_offset = static_cast<std::int64_t>(layout.v_offset());
  out.k_scales_offset = static_cast<std::int64_t>(layout.k_scales_offset());
  out.v_scales_offset = static_cast<std::int64_t>(layout.v_scales_offset());
  out.type = static_cast<int>(layout.type);
  out.head_dim = layout.head_dim;
  out.v_stride = layout.v_stride();
  out.n_scales = layout.n_scales();
  return out;
}

template <class L>
void pack_input(const PackInputArgs& args, Stream stream) {
  if (args.n_rows == 0) return;
  PackInputParams p{};
  p.x = args.x;
  p.x_stride = args.x_stride;
  p.row_index = args.row_index;
  p.weight = args.norm.weight;
  p.bias = args.norm.bias;
  p.epsilon = args.norm.epsilon;
  p.norm = static_cast<int>(args.norm.kind);
  p.n_rows = args.n_rows;
  p.n_in = args.n_in;
  const auto view = [&](InputKind kind) {
    std::byte* data = args.out.data[static_cast<int>(kind)];
    return data == nullptr ? InputView{} : input_view(kind, args.n_rows, args.n_in, data);
  };
  p.x32 = view(InputKind::kFloat).x;
  const InputView q32 = view(InputKind::kQ32);
  p.q32 = q32.q;
  p.d32 = q32.d;
  p.sums32 = q32.sums;
  const InputView q256 = view(InputKind::kQ256);
  p.q256 = q256.q;
  p.d256 = q256.d;
  p.sums256 = q256.sums;
  const std::int64_t n_padded = div_up(args.n_in, 256) * 256;
  p.k_per_block = p.norm == 0 ? 2048 : n_padded;
  const auto rows = static_cast<int>(div_up(args.n_rows, kColsPerTile) * kColsPerTile);
  L::template launch<PackInput>(p, rows, static_cast<int>(div_up(n_padded, p.k_per_block)), 256,
                                kSumBytes, stream);
}

// Everything but the segments. experts: as in ExpertsArgs.
[[nodiscard]] inline MatmulLaunch matmul_launch(const PackedInput& input, int n_rows, DType dtype,
                                                std::int64_t n_in, bool use_dp4a,
                                                const std::int32_t* experts = nullptr) {
  MatmulLaunch launch;
  launch.dtype = dtype;
  launch.use_dp4a = use_dp4a && input_kind(dtype) != InputKind::kFloat;
  const WeightLayout layout = weight_layout(dtype);
  const InputView view =
      input_view(layout.kind, n_rows, n_in, input.data[static_cast<int>(layout.kind)]);
  MatmulParams& p = launch.params;
  p.input = {view.q, view.d, view.sums, view.x, view.n_k};
  p.n_rows = n_rows;
  p.n_col_tiles = static_cast<int>(div_up(n_rows, kColsPerTile));
  p.experts = experts;
  const bool single = launch.use_dp4a || experts != nullptr;
  launch.col_tiles = single ? 1 : p.n_col_tiles <= 2 ? p.n_col_tiles : 4;
  const std::int64_t n_units = div_up(n_in, layout.unit);
  p.n_units = static_cast<int>(n_units);
  p.units_per_slice = static_cast<int>(units_per_slice(n_units));
  p.n_slices = k_slices(dtype, n_in);
  return launch;
}

inline void add_segment(MatmulLaunch& launch, const Segment& segment) {
  SegmentParams s{};
  const PackedWeight& w = segment.weight;
  s.headers = reinterpret_cast<const std::uint8_t*>(w.data);
  s.codes = s.headers + header_plane_bytes(w.dtype, w.n_stacked * padded_rows(w.n_out), w.n_in);
  s.bias = segment.bias;
  s.dst = segment.dst;
  s.dst_stride = segment.dst_stride;
  s.n_out = w.n_out;
  s.first_tile = launch.params.n_tiles;
  s.store = segment.accumulate ? kStoreAdd : kStorePlain;
  s.activation = static_cast<int>(segment.activation);
  launch.params.segments[launch.params.n_segments++] = s;
  launch.params.expert_tiles = static_cast<int>(div_up(w.n_out, kRowsPerTile));
  launch.params.n_tiles += static_cast<int>(div_up(w.n_out, kRowsPerTile));
}

template <class L>
void linear(const LinearArgs& args, Stream stream) {
  if (args.n_rows == 0) return;
  for (int i = 0; i < args.n_segments;) {
    const PackedWeight& first = args.segments[i].weight;
    MatmulLaunch launch = matmul_launch(args.input, args.n_rows, first.dtype, first.n_in,
                                        args.use_dp4a, args.experts);
    for (; i < args.n_segments && args.segments[i].weight.dtype == first.dtype; ++i)
      add_segment(launch, args.segments[i]);
    L::matmul(launch, stream);
  }
}

template <class L>
void gated_linear(const GatedArgs& args, Stream stream) {
  if (args.n_rows == 0) return;
  Segment gate;
  gate.weight = args.gate;
  gate.dst = args.dst;
  gate.dst_stride = args.dst_stride;
  Segment up = gate;
  up.weight = args.up;
  up.activation = args.activation;
  const auto launch_of = [&](const PackedWeight& weight) {
    return matmul_launch(args.input, args.n_rows, weight.dtype, weight.n_in, args.use_dp4a,
                         args.experts);
  };
  MatmulLaunch first = launch_of(args.gate);
  const int n_columns = args.experts != nullptr ? kColsPerTile : args.n_rows;
  if (!args.use_dp4a && gates_at_once(n_columns, args.gate.dtype, args.up.dtype)) {
    gate.activation = args.activation;
    add_segment(first, gate);
    const int n_tiles = first.params.n_tiles;
    add_segment(first, up);
    first.params.n_tiles = n_tiles;
    first.gated = true;
    L::matmul(first, stream);
    return;
  }
  add_segment(first, gate);
  L::matmul(first, stream);
  MatmulLaunch second = launch_of(args.up);
  add_segment(second, up);
  second.params.segments[0].store = kStoreGate;
  L::matmul(second, stream);
}

[[nodiscard]] inline NewRows new_rows(const RopeStoreArgs& args) {
  NewRows rows{};
  rows.n_rot = args.n_rot;
  rows.interleaved = args.interleaved ? 1 : 0;
  rows.cos_sin = args.cos_sin;
  rows.k = args.k;
  rows.v = args.v;
  rows.k_stride = args.k_stride;
  rows.v_stride = args.v_stride;
  return rows;
}

template <class L>
void rope_store(const RopeStoreArgs& args, Stream stream) {
  if (args.n_rows == 0) return;
  RopeStoreParams p{};
  p.n_heads = args.n_heads;
  p.n_kv_heads = args.n_kv_heads;
  p.rows = new_rows(args);
  p.q = args.q;
  p.q_stride = args.q_stride;
  p.first_slot = args.first_slot;
  p.slot_offset = args.slot_offset;
  p.cache = cache_params(args.layout, args.pages, args.page_offset);
  L::template launch<RopeStore>(p, args.n_rows, args.n_heads + 2 * args.n_kv_heads, 128, 0, stream);
}

template <class L>
void copy_position(const CopyPositionArgs& args, Stream stream) {
  if (args.n_layers == 0) return;
  CopyPositionParams p{};
  p.src = args.src;
  p.dst = args.dst;
  p.from = args.from;
  p.to = args.to;
  p.layer_bytes = static_cast<std::int64_t>(args.layout.layer_bytes());
  p.cache = cache_params(args.layout, nullptr, 0);
  L::template launch<CopyPosition>(p, args.n_layers, args.layout.n_kv_heads, 128, 0, stream);
}

template <class L>
void norm(const NormTask& task, Stream stream) {
  if (task.n_rows == 0) return;
  NormRowsParams p{};
  p.x = task.x;
  p.x_stride = task.x_stride;
  p.weight = task.norm.weight;
  p.bias = task.norm.bias;
  p.epsilon = task.norm.epsilon;
  p.norm = static_cast<int>(task.norm.kind);
  p.n = task.n;
  p.dst = task.dst;
  p.dst_stride = task.dst_stride;
  p.accumulate = task.accumulate ? 1 : 0;
  L::template launch<NormRows>(p, task.n_rows, task.n_groups, 128, kSumBytes, stream);
}

template <class L>
void head(const HeadArgs& args, Stream stream) {
  if (args.n_rows == 0) return;
  const HeadScratch scratch = head_scratch(args.n_rows, args.n_tokens, args.n_blocks, args.top_k);
  const bool subset = args.n_blocks > 0;
  // All logits and somebody reads them: no need to keep them twice.
  const bool in_place =
      !subset && args.logits != nullptr && args.logits_stride >= args.weight.n_out;
  HeadParams p{};
  float* logits = in_place ? args.logits : reinterpret_cast<float*>(args.scratch + scratch.logits);
  p.logits = logits;
  p.stride = in_place ? args.logits_stride : scratch.n_columns;
  p.n_columns = scratch.n_columns;
  p.n_tokens = args.n_tokens;
  p.blocks = subset ? args.blocks : nullptr;
  p.n_rows = args.n_rows;
  p.n_scans = scratch.n_scans;
  p.top_k = args.top_k;
  p.log_k = std::countr_zero(static_cast<unsigned>(scratch.padded_k));
  p.keys = reinterpret_cast<std::uint64_t*>(args.scratch + scratch.keys);
  p.bad = reinterpret_cast<std::int32_t*>(args.scratch + scratch.bad);
  if (args.log_sum_exp != nullptr) {
    p.group_max = reinterpret_cast<float*>(args.scratch + scratch.group_max);
    p.group_sum = reinterpret_cast<float*>(args.scratch + scratch.group_sum);
  }
  p.top_tokens = &args.top->token;
  p.log_sum_exp = args.log_sum_exp;
  p.full = args.logits;
  p.full_stride = args.logits_stride;

  MatmulLaunch launch =
      matmul_launch(args.input, args.n_rows, args.weight.dtype, args.weight.n_in, args.use_dp4a);
  Segment segment;
  segment.weight = args.weight;
  segment.bias = args.bias;
  segment.dst = logits;
  segment.dst_stride = p.stride;
  add_segment(launch, segment);
  // Rows behind the last token are padding of the matrix; not computed unless in the last tile.
  launch.params.n_tiles = static_cast<int>(scratch.n_columns / kHeadBlock);
  launch.params.tiles = p.blocks;
  L::matmul(launch, stream);

  if (args.soft_cap > 0) {
    p.soft_cap = args.soft_cap;
    p.capped = logits;
    L::template launch<HeadCap>(p, pieces(p.n_columns), args.n_rows, kPiece, 0, stream);
  }
  const int scan_bytes = kScanLogits * 8 + 32;
  L::template launch<HeadScan>(p, p.n_scans, args.n_rows, 256, scan_bytes, stream);
  L::template launch<HeadMerge>(p, args.n_rows, 1, 256, scan_bytes, stream);
  if (args.logits == nullptr || in_place) return;
  if (subset) {
    L::template launch<HeadScatter>(p, pieces(args.n_tokens), args.n_rows, kPiece, 0, stream);
  } else {
    // Narrow rows of logits: copied without the padding of the last tile.
    L::template launch<HeadCopy>(p, pieces(args.n_tokens), args.n_rows, kPiece, 0, stream);
  }
}

template <class L>
void choose(const ChooseArgs& args, Stream stream) {
  if (args.n_rows == 0) return;
  const ChooseParams p{args.logits,    args.stride, args.n_experts, args.n_used,
                       args.of_chosen, args.chosen, args.weights};
  L::template launch<Choose>(p, args.n_rows, 1, Choose::kMaxThreads, kSumBytes, stream);
}

template <class L>
void group(const GroupArgs& args, Stream stream) {
  const GroupParams p{args.chosen,  args.n_pairs, args.n_used, args.n_experts, args.n_slots / 8,
                      args.experts, args.rows,    args.slots,  args.slot_of};
  L::template launch<Group>(p, 1, 1, Group::kMaxThreads,
                            args.n_experts * static_cast<int>(sizeof(std::int32_t)), stream);
}

template <class L>
void combine(const CombineArgs& args, Stream stream) {
  if (args.n_rows == 0) return;
  const CombineParams p{args.y,      args.y_stride, args.slot_of, args.weights,
                        args.n_used, args.n,        args.dst,     args.dst_stride};
  L::template launch<Combine>(p, pieces(args.n), args.n_rows, kPiece, 0, stream);
}

template <class L>
void take_tokens(const TakeTokensArgs& args, Stream stream) {
  if (args.n_rows == 0) return;
  static_assert(sizeof(TopToken) == 2 * sizeof(std::int32_t));
  const TakeTokensParams p{args.tokens, args.picks, &args.found->token, args.n_rows};
  constexpr int kThreads = TakeTokens::kMaxThreads;
  L::template launch<TakeTokens>(p, (args.n_rows + kThreads - 1) / kThreads, 1, kThreads, 0,
                                 stream);
}

template <class L>
void embed(const EmbedArgs& args, Stream stream) {
  if (args.n_rows == 0) return;
  const PackedWeight& w = args.weight;
  const auto* headers = reinterpret_cast<const std::uint8_t*>(w.data);
  EmbedParams p{};
  p.headers = headers;
  p.codes = headers + header_plane_bytes(w.dtype, w.n_out, w.n_in);
  p.tokens = args.tokens;
  p.n_out = w.n_out;
  p.n_in = w.n_in;
  p.n_units = static_cast<int>(div_up(w.n_in, weight_layout(w.dtype).unit));
  p.dst = args.dst;
  p.dst_stride = args.dst_stride;
  p.scale = args.scale;
  const auto launch = [&]<class Row>() {
    L::template launch<Embed<Row>>(p, pieces(w.n_in), args.n_rows, kPiece, 0, stream);
  };
  switch (w.dtype) {
#define SPECDEC_PLAIN(name, ...) \
  case DType::k##name:           \
    return launch.template operator()<RowFloat<Format##name>>();
#define SPECDEC_BLOCK32(name, ...) \
  case DType::k##name:             \
    return launch.template operator()<Row32<Format32<Block##name>>>();
#define SPECDEC_BLOCK256(name, ...) \
  case DType::k##name:              \
    return launch.template operator()<Row256<Format256<Block##name>>>();
#include "tensor/formats.def"
  }
}

}  // namespace specdec::cuda
