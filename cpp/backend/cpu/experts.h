// The experts of a layer in one go: all that were chosen share the threads, and each is read once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/chunk_queue.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/packed_inputs.h"
#include "backend/expert_groups.h"
#include "base/aligned_buffer.h"
#include "base/thread_pool.h"

namespace specdec {

class CpuExperts {
 public:
  // `memory` is used until the last run() has ended.
  CpuExperts(const ExpertsTask& task, const MatmulKernels& matmul, const OpsKernels& ops,
             int n_threads, AlignedBuffer& memory);

  // Called by every thread of a task.
  void run(TaskContext& context);

 private:
  struct Group {
    std::int32_t expert;
    std::vector<std::int32_t> pairs;
    std::size_t input;  // of inputs_
    PackedInputs ffn;
  };
  // A column of inputs, and what fills it.
  struct Column {
    const PackedInputs* inputs;
    int column;
    const float* x;
  };

  void plan_inputs();
  void place(AlignedBuffer& memory);
  void fill(const std::vector<Column>& columns, TaskContext& context) const;
  void gate_and_up(const Group& group, std::int64_t tile) const;
  void down(const Group& group, std::int64_t tile) const;
  void multiply(const WeightMatrix* weight, const PackedInputs& inputs, int columns,
                const std::uint8_t* tiles, float* out) const;

  const ExpertsTask& task_;
  const MatmulKernels& matmul_;
  const OpsKernels& ops_;
  std::int64_t n_in_, n_ffn_, n_out_;
  std::int64_t gate_tiles_, gate_chunk_;  // tile rows, and how many of them a thread takes
  std::int64_t down_tiles_, down_chunk_;
  std::vector<Group> groups_;
  std::vector<PackedInputs> inputs_;
  std::vector<Column> input_columns_, ffn_columns_;
  float* ffn_ = nullptr;  // [n_pairs, n_ffn]
  float* out_ = nullptr;  // [n_pairs, n_out]
  ChunkQueue gate_queue_, down_queue_;
};

}  // namespace specdec
