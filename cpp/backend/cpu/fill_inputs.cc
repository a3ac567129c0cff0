#include "backend/cpu/fill_inputs.h"

#include <algorithm>
#include <cstddef>

#include "backend/cpu/tile_work.h"
#include "base/aligned_buffer.h"

namespace specdec {
namespace {

// The columns of a group lie beside each other, so threads that each took some of them would
// write into the same lines of their caches: each takes some numbers of all columns instead, or
// whole groups where there are many. What a norm says of a row is then found more than once.
template <class RowOf>
void fill_parts(const PackedInputs& inputs, const TaskContext& context, const RowOf& row_of) {
  const std::int64_t n_groups = inputs.split().n_groups();
  const int n_threads = context.n_threads();
  const std::int64_t n_parts = n_groups >= 2 * n_threads ? 1 : n_threads;
  const auto [begin, end] = part_of(n_groups * n_parts, context);
  for (std::int64_t at = begin; at < end;) {
    const std::int64_t group = at / n_parts;
    const std::int64_t next = std::min(end, (group + 1) * n_parts);
    const std::int64_t first_k = inputs.part(at - group * n_parts, n_parts);
    const std::int64_t end_k = inputs.part(next - group * n_parts, n_parts);
    at = next;
    if (first_k == end_k) continue;
    const int first = inputs.split().first(static_cast<int>(group));
    for (int r = first; r < first + inputs.split().size(static_cast<int>(group)); ++r)
      inputs.fill_part(r, row_of(r), first_k, end_k);
  }
}

}  // namespace

void fill_inputs(const OpsKernels& ops, const float* x, std::int64_t x_stride, int n_rows,
                 const std::int32_t* row_index, const Norm& norm, const PackedInputs& inputs,
                 TaskContext& context) {
  thread_local AlignedBuffer normalised;
  const std::int64_t n_in = inputs.n_in();
  if (norm.kind != Norm::Kind::kNone)
    normalised.require(static_cast<std::size_t>(n_in) * sizeof(float));
  const auto row_of = [&](int r) {
    const float* row = x + (row_index == nullptr ? r : row_index[r]) * x_stride;
    if (norm.kind == Norm::Kind::kNone) return row;
    ops.norm(norm, row, n_in, normalised.as<float>());
    return static_cast<const float*>(normalised.as<float>());
  };
  if (inputs.fills_parts()) {
    fill_parts(inputs, context, row_of);
  } else {
    const auto [first, end] = part_of(n_rows, context);
    for (std::int64_t r = first; r < end; ++r) {
      const int row = static_cast<int>(r);
      inputs.fill(row, row_of(row));
    }
  }
  context.barrier();
}

}  // namespace specdec
