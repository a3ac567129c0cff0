// The operations of a pass as launches of kernels.
#include <algorithm>
#include <utility>

#include "backend/stream/backend_impl.h"
#include "base/error.h"

namespace specdec::stream {

PackedInput StreamBackend::pack_input(const float* x, std::int64_t x_stride, int n_rows,
                                      std::int64_t n_in, const std::int32_t* row_index,
                                      const Norm& norm, std::initializer_list<DType> dtypes) {
  SPECDEC_CHECK(n_rows <= space_.input_rows && n_in <= shape_.max_n_in);
  PackedInput out;
  for (const DType dtype : dtypes) {
    const auto kind = static_cast<std::size_t>(kernels_.memory.input_kind(dtype));
    out.data[kind] = at<std::byte>(space_.inputs_of[kind]);
  }
  launch("norm and quantisation", kernels_.pack_input,
         PackInputArgs{.x = x,
                       .x_stride = x_stride,
                       .n_rows = n_rows,
                       .n_in = n_in,
                       .row_index = row_index,
                       .norm = norm,
                       .out = out});
  return out;
}

void StreamBackend::linear(const LinearTask& task) {
  issue_rope();
  if (task.n_rows == 0 || task.segments.empty()) return;
  SPECDEC_CHECK(task.segments.size() <= kMaxSegments);
  LinearArgs args;
  args.n_rows = task.n_rows;
  args.n_segments = static_cast<int>(task.segments.size());
  DType dtypes[kMaxSegments];
  std::fill(std::begin(dtypes), std::end(dtypes), task.segments[0].weight->dtype());
  for (std::size_t i = 0; i < task.segments.size(); ++i) {
    const LinearSegment& segment = task.segments[i];
    dtypes[i] = segment.weight->dtype();
    args.segments[i] = {.weight = packed(segment.weight),
                        .bias = segment.bias,
                        .dst = segment.dst,
                        .dst_stride = segment.dst_stride,
                        .accumulate = segment.accumulate,
                        .activation = segment.activation};
  }
  static_assert(kMaxSegments == 4);
  args.input = pack_input(task.x, task.x_stride, task.n_rows, task.segments[0].weight->n_in(),
                          task.row_index, task.norm, {dtypes[0], dtypes[1], dtypes[2], dtypes[3]});
  launch("linear", kernels_.linear, args);
}

void StreamBackend::gated_linear(const GatedLinearTask& task) {
  if (task.n_rows == 0) return;
  SPECDEC_CHECK(task.gate_bias == nullptr && task.up_bias == nullptr);
  GatedArgs args{.input = {},
                 .n_rows = task.n_rows,
                 .gate = packed(task.gate),
                 .up = packed(task.up),
                 .activation = task.activation,
                 .dst = task.dst,
                 .dst_stride = task.dst_stride};
  args.input = pack_input(task.x, task.x_stride, task.n_rows, task.gate->n_in(), task.row_index,
                          task.norm, {task.gate->dtype(), task.up->dtype()});
  launch("gated linear", kernels_.gated_linear, args);
}

// Few rows are left to the attention over them, which saves a kernel.
void StreamBackend::rope_store(const RopeStoreTask& task) {
  issue_rope();
  if (task.n_rows == 0) return;
  rope_ = RopeStoreArgs{.n_rows = task.n_rows,
                        .n_heads = task.n_heads,
                        .n_kv_heads = task.n_kv_heads,
                        .head_dim = task.head_dim,
                        .n_rot = task.n_rot,
                        .interleaved = task.interleaved,
                        .cos_sin = task.cos_sin,
                        .q = task.q,
                        .k = task.k,
                        .v = task.v,
                        .q_stride = task.q_stride,
                        .k_stride = task.k_stride,
                        .v_stride = task.v_stride,
                        .layout = task.cache.layout,
                        .pages = task.cache.pages,
                        .page_offset = task.cache.page_offset,
                        .first_slot = first_slot_,
                        .slot_offset = task.first_slot - pass_.first_slot};
  if (task.n_rows > kMostNewRows) issue_rope();
}

// What rope_store() has left, when no attention took it.
void StreamBackend::issue_rope() {
  if (rope_.n_rows == 0) return;
  launch("rope and store", kernels_.rope_store, std::exchange(rope_, {}));
}

void StreamBackend::attention(const AttentionTask& task) {
  if (task.n_rows == 0) return issue_rope();
  SPECDEC_CHECK(task.sinks == nullptr);
  const RopeStoreArgs rope = std::exchange(rope_, {});
  AttentionArgs args{.n_rows = task.n_rows,
                     .n_heads = task.n_heads,
                     .n_kv_heads = task.n_kv_heads,
                     .head_dim = task.head_dim,
                     .scale = task.scale,
                     .q = task.q,
                     .out = task.out,
                     .q_stride = task.q_stride,
                     .out_stride = task.out_stride,
                     .layout = task.cache.layout,
                     .pages = task.cache.pages,
                     .page_offset = task.cache.page_offset,
                     .first_slot = first_slot_,
                     .slot_offset = task.first_slot - pass_.first_slot,
                     .parents = task.parents,
                     .max_chunks = key_.max_chunks,
                     .scratch = at<std::byte>(space_.scratch),
                     .counters = at<std::int32_t>(space_.counters),
                     .rope = rope,
                     .n_before = rope.n_rows == 0 ? 0 : rope.n_rows - task.n_rows,
                     .window = task.window,
                     .soft_cap = task.soft_cap};
  // The last rows of those that were to be stored, in the same layer.
  SPECDEC_CHECK(rope.n_rows == 0 ||
                (rope.page_offset == args.page_offset && rope.pages == args.pages &&
                 args.n_before >= 0 && rope.slot_offset + args.n_before == args.slot_offset));
  // Of a chain, rows before a piece count as committed.
  int piece = task.n_rows;
  while (piece > 1 &&
         kernels_.memory.attention_scratch_bytes(piece, task.n_heads, task.head_dim,
                                                 args.max_chunks) > space_.attention_bytes) {
    SPECDEC_CHECK(task.parents == nullptr && rope.n_rows == 0);
    piece = (piece + 1) / 2;
  }
  for (int row = 0; row < task.n_rows; row += piece) {
    AttentionArgs part = args;
    part.n_rows = std::min(piece, task.n_rows - row);
    part.q += row * args.q_stride;
    part.out += row * args.out_stride;
    part.slot_offset += row;
    launch("attention", kernels_.attention, part);
  }
}

void StreamBackend::head(const HeadTask& task) {
  const int n_blocks = task.blocks.empty() ? 0 : key_.pass.n_head_blocks;
  SPECDEC_CHECK(pass_.n_steps == 1 || task.n_rows == 1);
  for (int row = 0; row < task.n_rows; row += kHeadRows) {
    const int n_rows = std::min(kHeadRows, task.n_rows - row);
    HeadArgs args{.input = {},
                  .n_rows = n_rows,
                  .weight = packed(task.weight),
                  .bias = task.bias,
                  .n_tokens = task.n_tokens,
                  .soft_cap = task.soft_cap,
                  .blocks = n_blocks > 0 ? buffers_.head_blocks : nullptr,
                  .n_blocks = n_blocks,
                  .top_k = task.top_k,
                  .top = at<TopToken>(space_.top) + step_ * task.top_k,
                  .log_sum_exp =
                      task.log_sum_exp != nullptr ? at<float>(space_.log_sum_exp) + step_ : nullptr,
                  .logits = task.logits != nullptr ? at<float>(space_.logits) : nullptr,
                  .logits_stride = task.logits_stride,
                  .scratch = at<std::byte>(space_.scratch)};
    args.input = pack_input(task.x + row * task.x_stride, task.x_stride, n_rows,
                            task.weight->n_in(), nullptr, task.norm, {task.weight->dtype()});
    launch("output head", kernels_.head, args);
    head_rows_ = step_ + n_rows;
    head_top_k_ = task.top_k;
    if (task.n_rows <= kHeadRows) return;  // finish_pass() fetches them
    // More rows than there is room for: fetched piece by piece.
    SPECDEC_CHECK(!recording_);
    download_results();
    wait("the output head");
    copy_results(row, n_rows);
    head_rows_ = 0;
  }
}

}  // namespace specdec::stream
