// Where the buffers of passes lie in one block of device memory, and what a pass uploads: pure
// arithmetic. Addresses stay the same for life, because recordings hold them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/device_backend.h"
#include "backend/stream/kernels.h"
#include "backend/stream/memory_part.h"

namespace specdec::stream {

// Rows that go through the output head at a time; a verification has no more.
inline constexpr int kHeadRows = 16;
static_assert(kMaxFollowingRows <= kHeadRows);
// Rows of the largest tree; a chain may be longer, because its attention can be cut.
inline constexpr int kTreeRows = 64;

// Offsets into the block.
struct WorkSpace {
  WorkSpace() = default;
  WorkSpace(const WorkShape& shape, const KernelMemory& memory);

  int n_pages = 0;                                                  // places in the page table
  std::size_t hidden_row = 0, qkv_row = 0, q_row = 0, ffn_row = 0;  // floats, padded
  std::size_t logits_row = 0;

  std::size_t inputs = 0, inputs_bytes = 0;  // what a pass uploads: PassInputs
  std::size_t hidden = 0, qkv = 0, attention = 0, ffn = 0;
  std::size_t inputs_of[kInputKinds] = {};
  int input_rows = 0;
  // Of mixtures: what rows choose; of a piece of rows the slots, as GroupArgs has them, and what
  // experts make of them.
  std::size_t chosen = 0, expert_weights = 0, router_logits = 0;
  std::size_t slot_experts = 0, slot_rows = 0, slots = 0, slot_of = 0;
  std::size_t expert_ffn = 0, expert_out = 0;
  std::size_t expert_ffn_row = 0;                // floats, padded
  std::size_t counters = 0, counters_bytes = 0;  // of attention: zeros between passes
  std::size_t top = 0, log_sum_exp = 0, logits = 0;
  std::size_t scratch = 0, scratch_bytes = 0;
  std::size_t attention_bytes = 0;  // of scratch, for one launch of attention
  std::size_t n_bytes = 0;
  std::vector<MemoryPart> parts;  // its buffers

 private:
  void place_experts(const WorkShape& shape);
  [[nodiscard]] std::size_t place(std::size_t n_bytes_of_it);

  std::size_t gap_bytes_ = 0;
};

// The inputs of one pass, packed densely; offsets depend only on what its key says.
struct PassInputs {
  // n_fed: rows with those of later steps. n_picks: n_rows of a pass that follows another, else
  // 0. gap_bytes: as KernelMemory has them.
  PassInputs(int n_rows, int n_fed, int n_rot, int n_pages, bool tree, int n_head_blocks,
             int n_picks, std::size_t gap_bytes);

  std::size_t first_slot = 0;   // int32
  std::size_t pages = 0;        // [n_pages] pointers
  std::size_t tokens = 0;       // [n_rows] int32
  std::size_t parents = 0;      // [n_rows] int32, in trees
  std::size_t cos_sin = 0;      // [n_fed, n_rot] float
  std::size_t head_blocks = 0;  // [n_head_blocks] int32
  std::size_t picks = 0;        // [n_picks] int32
  std::size_t n_bytes = 0;
  std::vector<MemoryPart> parts;
};

// Chunks that a pass may read, rounded up so that few recordings serve all lengths.
[[nodiscard]] int chunk_bucket(int n_positions, int n_pages);
// The same for the blocks of a head that has n_all.
[[nodiscard]] int head_block_bucket(int n_blocks, int n_all);

}  // namespace specdec::stream
