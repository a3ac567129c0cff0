// The small operations of the CPU backend, one table per instruction set. All entries give the same
// bits on every instruction set and for every thread count and row count.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "base/cpu_isa.h"
#include "base/thread_pool.h"

namespace specdec {

inline constexpr int kMaxHeadDim = 1024;  // of rope_store and attention

struct OpsKernels {
  // out[0..n) = normalised x; kind must not be kNone. Any n >= 1.
  void (*norm)(const Norm& norm, const float* x, std::int64_t n, float* out);
  // x[i] = activation(x[i]). Any n.
  void (*activate)(Activation activation, float* x, std::int64_t n);
  // dst[i] = activation(gate[i]) * up[i]; dst may be gate or up.
  void (*activate_multiply)(Activation activation, const float* gate, const float* up,
                            std::int64_t n, float* dst);
  void (*add)(const float* x, std::int64_t n, float* dst);
  // Largest of x[0..n); NaN when a value is NaN or +infinity.
  float (*max)(const float* x, std::int64_t n);
  // Sum of e^(x[i] - max).
  float (*sum_exp)(const float* x, std::int64_t n, float max);

  // x[i] = cap * tanh(x[i] / cap). Any n.
  void (*soft_cap)(float cap, float* x, std::int64_t n);

  // Whole operations, called by every thread of a task with the same arguments.
  void (*rope_store)(const RopeStoreTask& task, TaskContext& context);
  // scratch: attention_scratch_bytes() bytes, 64-byte aligned, shared by all threads.
  void (*attention)(const AttentionTask& task, std::byte* scratch, TaskContext& context);

  // One head of a recurrent task, but for the inputs that its state keeps. scratch:
  // recurrent_scratch_floats() floats of one thread.
  void (*recurrent)(const RecurrentTask& task, int head, float* scratch);
};

[[nodiscard]] const OpsKernels& ops_kernels(CpuIsa isa);
[[nodiscard]] std::size_t attention_scratch_bytes(const AttentionTask& task, int n_threads);

// Throw Error(kInternal) when a task breaks a rule of its type; the kernels check nothing.
void check_attention(const AttentionTask& task);
void check_rope_store(const RopeStoreTask& task);

inline constexpr int kMaxRecurrentTaps = 8;
void check_recurrent(const RecurrentTask& task);
[[nodiscard]] std::size_t recurrent_scratch_floats(const RecurrentTask& task);
// The inputs before the next row of a chain, when all heads are done.
void keep_last_inputs(const RecurrentTask& task);

}  // namespace specdec

// Of each instruction set, filled by its translation unit (units/*.in).
#define SPECDEC_ISA_HERE(id, space, ...) \
  namespace specdec::space {             \
  extern const OpsKernels kOps;          \
  }
#include "base/isa.def"
