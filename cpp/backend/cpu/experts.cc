#include "backend/cpu/experts.h"

#include <algorithm>
#include <utility>

#include "backend/cpu/tile_work.h"
#include "base/error.h"

namespace specdec {
namespace {

std::int64_t n_chunks(std::int64_t n_tiles, std::int64_t per_chunk, std::size_t n_groups) {
  return (n_tiles + per_chunk - 1) / per_chunk * static_cast<std::int64_t>(n_groups);
}

// Calls work(group, tile) for the chunks that this thread takes; each is of one group.
template <class Work>
void share(ChunkQueue& queue, std::int64_t n_tiles, std::int64_t per_chunk, int thread,
           const Work& work) {
  const std::int64_t of_group = n_chunks(n_tiles, per_chunk, 1);
  for (std::int64_t chunk; (chunk = queue.take(thread)) >= 0;) {
    const std::int64_t first = chunk % of_group * per_chunk;
    for (std::int64_t tile = first; tile < std::min(n_tiles, first + per_chunk); ++tile)
      work(static_cast<std::size_t>(chunk / of_group), tile);
  }
}

int valid_rows(std::int64_t n_out, std::int64_t tile) {
  return static_cast<int>(std::min<std::int64_t>(kTileRows, n_out - tile * kTileRows));
}

// Of one expert to a tile of n_cols columns.
void add_bias(const float* bias, std::int64_t n_out, std::int64_t tile, int n_cols, float* out) {
  if (bias == nullptr) return;
  for (int c = 0; c < n_cols; ++c) {
    for (int i = 0; i < valid_rows(n_out, tile); ++i)
      out[c * kTileRows + i] += bias[tile * kTileRows + i];
  }
}

}  // namespace

CpuExperts::CpuExperts(const ExpertsTask& task, const MatmulKernels& matmul, const OpsKernels& ops,
                       int n_threads, AlignedBuffer& memory)
    : task_(task),
      matmul_(matmul),
      ops_(ops),
      n_in_(packed(task.gate[0].get()).n_in()),
      n_ffn_(packed(task.gate[0].get()).n_out()),
      n_out_(packed(task.down[0].get()).n_out()),
      gate_tiles_(packed(task.gate[0].get()).n_tile_rows()),
      gate_chunk_(tiles_per_chunk(
          gate_tiles_,
          packed(task.gate[0].get()).tile_row_bytes() + packed(task.up[0].get()).tile_row_bytes(),
          n_threads)),
      down_tiles_(packed(task.down[0].get()).n_tile_rows()),
      down_chunk_(
          tiles_per_chunk(down_tiles_, packed(task.down[0].get()).tile_row_bytes(), n_threads)),
      gate_queue_(0, n_threads),
      down_queue_(0, n_threads) {
  const PackedMatrix& up = packed(task.up[0].get());
  SPECDEC_CHECK(up.n_in() == n_in_ && up.n_out() == n_ffn_ &&
                packed(task.down[0].get()).n_in() == n_ffn_);
  for (ExpertGroup& group : group_by_expert(task)) {
    PackedInputs ffn(matmul_, static_cast<int>(group.pairs.size()), n_ffn_);
    const PackedMatrix& down = packed(task.down[static_cast<std::size_t>(group.expert)].get());
    ffn.want(down.input_kind(), down.dtype());
    groups_.push_back({group.expert, std::move(group.pairs), 0, std::move(ffn)});
  }
  plan_inputs();
  place(memory);
  gate_queue_ = ChunkQueue(n_chunks(gate_tiles_, gate_chunk_, groups_.size()), n_threads);
  down_queue_ = ChunkQueue(n_chunks(down_tiles_, down_chunk_, groups_.size()), n_threads);
}

// Experts that one row alone has chosen share that row's input.
void CpuExperts::plan_inputs() {
  std::vector<std::ptrdiff_t> alone(static_cast<std::size_t>(task_.n_rows), -1);
  for (Group& group : groups_) {
    const auto expert = static_cast<std::size_t>(group.expert);
    const auto row = static_cast<std::size_t>(group.pairs[0] / task_.n_used);
    const bool single = group.pairs.size() == 1;
    if (single && alone[row] >= 0) {
      group.input = static_cast<std::size_t>(alone[row]);
    } else {
      group.input = inputs_.size();
      if (single) alone[row] = static_cast<std::ptrdiff_t>(group.input);
      inputs_.emplace_back(matmul_, static_cast<int>(group.pairs.size()), n_in_);
    }
    for (const WeightMatrix* weight : {task_.gate[expert].get(), task_.up[expert].get()})
      inputs_[group.input].want(packed(weight).input_kind(), weight->dtype());
  }
}

void CpuExperts::place(AlignedBuffer& memory) {
  const auto n_pairs = static_cast<std::size_t>(task_.n_rows * task_.n_used);
  const std::size_t ffn_bytes =
      n_pairs * static_cast<std::size_t>(padded_row(n_ffn_)) * sizeof(float);
  const std::size_t out_bytes =
      n_pairs * static_cast<std::size_t>(padded_row(n_out_)) * sizeof(float);
  std::size_t n_bytes = ffn_bytes + out_bytes;
  for (const PackedInputs& inputs : inputs_) n_bytes += inputs.n_bytes();
  for (const Group& group : groups_) n_bytes += group.ffn.n_bytes();
  memory.require(n_bytes);
  ffn_ = memory.as<float>();
  out_ = reinterpret_cast<float*>(memory.data() + ffn_bytes);
  std::byte* at = memory.data() + ffn_bytes + out_bytes;
  for (PackedInputs& inputs : inputs_) {
    inputs.place(at);
    at += inputs.n_bytes();
  }
  std::vector<bool> planned(inputs_.size());
  for (Group& group : groups_) {
    group.ffn.place(at);
    at += group.ffn.n_bytes();
    for (std::size_t i = 0; i < group.pairs.size(); ++i) {
      const std::int32_t pair = group.pairs[i];
      ffn_columns_.push_back({&group.ffn, static_cast<int>(i), ffn_ + pair * padded_row(n_ffn_)});
      if (planned[group.input]) continue;
      input_columns_.push_back({&inputs_[group.input], static_cast<int>(i),
                                task_.x + pair / task_.n_used * task_.x_stride});
    }
    planned[group.input] = true;
  }
}

void CpuExperts::fill(const std::vector<Column>& columns, TaskContext& context) const {
  const auto [first, end] = part_of(static_cast<std::int64_t>(columns.size()), context);
  for (std::int64_t i = first; i < end; ++i) {
    const Column& column = columns[static_cast<std::size_t>(i)];
    column.inputs->fill(column.column, column.x);
  }
  context.barrier();
}

void CpuExperts::multiply(const WeightMatrix* weight, const PackedInputs& inputs, int columns,
                          const std::uint8_t* tiles, float* out) const {
  const PackedMatrix& matrix = packed(weight);
  const PackedInput& input = inputs.view(matrix.input_kind(), columns);
  matmul_.tile(matrix.input_kind(), matrix.dtype(), input)(tiles, input, out);
}

void CpuExperts::gate_and_up(const Group& group, std::int64_t tile) const {
  const WeightMatrix* gate = task_.gate[static_cast<std::size_t>(group.expert)].get();
  const WeightMatrix* up = task_.up[static_cast<std::size_t>(group.expert)].get();
  const std::uint8_t* gate_tiles = packed(gate).tile_row(tile, tile_scratch(0));
  const std::uint8_t* up_tiles = packed(up).tile_row(tile, tile_scratch(1));
  alignas(64) float gate_out[kMaxWideColumns * kTileRows];
  alignas(64) float up_out[kMaxWideColumns * kTileRows];
  const PackedInputs& input = inputs_[group.input];
  for (int g = 0; g < input.split().n_groups(); ++g) {
    const int n_cols = input.split().size(g);
    multiply(gate, input, g, gate_tiles, gate_out);
    multiply(up, input, g, up_tiles, up_out);
    add_bias(bias_of(task_.gate_bias, group.expert, n_ffn_), n_ffn_, tile, n_cols, gate_out);
    add_bias(bias_of(task_.up_bias, group.expert, n_ffn_), n_ffn_, tile, n_cols, up_out);
    ops_.activate_multiply(task_.activation, gate_out, up_out, n_cols * kTileRows, gate_out);
    for (int c = 0; c < n_cols; ++c) {
      const std::int32_t pair = group.pairs[static_cast<std::size_t>(input.split().first(g) + c)];
      std::copy_n(gate_out + c * kTileRows, valid_rows(n_ffn_, tile),
                  ffn_ + pair * padded_row(n_ffn_) + tile * kTileRows);
    }
  }
}

void CpuExperts::down(const Group& group, std::int64_t tile) const {
  const WeightMatrix* weight = task_.down[static_cast<std::size_t>(group.expert)].get();
  const std::uint8_t* tiles = packed(weight).tile_row(tile, tile_scratch(0));
  alignas(64) float out[kMaxWideColumns * kTileRows];
  for (int g = 0; g < group.ffn.split().n_groups(); ++g) {
    multiply(weight, group.ffn, g, tiles, out);
    const int n_cols = group.ffn.split().size(g);
    add_bias(bias_of(task_.down_bias, group.expert, n_out_), n_out_, tile, n_cols, out);
    for (int c = 0; c < n_cols; ++c) {
      const std::int32_t pair =
          group.pairs[static_cast<std::size_t>(group.ffn.split().first(g) + c)];
      std::copy_n(out + c * kTileRows, valid_rows(n_out_, tile),
                  out_ + pair * padded_row(n_out_) + tile * kTileRows);
    }
  }
}

void CpuExperts::run(TaskContext& context) {
  fill(input_columns_, context);
  share(gate_queue_, gate_tiles_, gate_chunk_, context.thread(),
        [&](std::size_t group, std::int64_t tile) { gate_and_up(groups_[group], tile); });
  context.barrier();
  fill(ffn_columns_, context);
  share(down_queue_, down_tiles_, down_chunk_, context.thread(),
        [&](std::size_t group, std::int64_t tile) { down(groups_[group], tile); });
  context.barrier();
  for (int row = context.thread(); row < task_.n_rows; row += context.n_threads())
    combine_experts(task_, row, out_, padded_row(n_out_), n_out_);
}

}  // namespace specdec
