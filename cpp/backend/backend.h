// The operations a device offers: a table, so that a CUDA build can become a separately shipped
// library. No model types here; all pointers are device pointers owned by the caller.
//
// Contract 1 (batch invariance): every row of every output has the same bits whatever the other
// rows, the number of rows and the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/kv_layout.h"
#include "backend/recurrent_layout.h"
#include "base/rows.h"
#include "tensor/dtype.h"

namespace specdec {

// Floats of a row of n that starts, and ends, on a cache line.
[[nodiscard]] constexpr std::int64_t padded_row(std::int64_t n) { return (n + 15) / 16 * 16; }

// A weight matrix [n_out, n_in] in the backend's own layout. Immutable.
class WeightMatrix {
 public:
  virtual ~WeightMatrix() = default;
  [[nodiscard]] virtual DType dtype() const = 0;
  [[nodiscard]] virtual std::int64_t n_out() const = 0;
  [[nodiscard]] virtual std::int64_t n_in() const = 0;
  [[nodiscard]] virtual std::size_t n_bytes() const = 0;  // memory it occupies
  // Points into the data it was made from, which must outlive it.
  [[nodiscard]] virtual bool is_view() const { return false; }
  // What Backend::use_packed() takes; empty where it cannot be kept in a file.
  [[nodiscard]] virtual std::span<const std::byte> packed() const { return {}; }
};

struct Norm {
  enum class Kind { kNone, kRms, kLayer };
  Kind kind = Kind::kNone;
  const float* weight = nullptr;  // [n_in]
  const float* bias = nullptr;    // [n_in], layer norm only, may be null
  float epsilon = 0;
};

// kClampedSwiglu only with what is multiplied: min(gate, 7) sigmoid(1.702 gate) (clamp(up, 7) + 1),
// the gate clamped in both places.
enum class Activation { kNone, kSilu, kGeluErf, kGeluTanh, kSigmoid, kClampedSwiglu };

// dst[r, :] = W norm(x[r, :]) + bias, one part of a linear operation.
struct LinearSegment {
  const WeightMatrix* weight = nullptr;
  const float* bias = nullptr;  // [n_out] or null
  float* dst = nullptr;         // [n_rows, dst_stride]
  std::int64_t dst_stride = 0;
  bool accumulate = false;  // dst += instead of dst =
  Activation activation = Activation::kNone;
};

// Several matrices applied to the same input; the input is normalised and quantised once.
struct LinearTask {
  const float* x = nullptr;  // [n_rows, x_stride]
  std::int64_t x_stride = 0;
  int n_rows = 0;
  Norm norm;
  std::span<const LinearSegment> segments;
  const std::int32_t* row_index = nullptr;  // [n_rows] rows of x to use, or null for 0..n_rows-1
};

// dst[r, :] = activation(Wg x + bg) * (Wu x + bu); both matrices have the same shape.
struct GatedLinearTask {
  const float* x = nullptr;
  std::int64_t x_stride = 0;
  int n_rows = 0;
  Norm norm;
  const WeightMatrix* gate = nullptr;
  const WeightMatrix* up = nullptr;
  Activation activation = Activation::kSilu;
  float* dst = nullptr;
  std::int64_t dst_stride = 0;
  const std::int32_t* row_index = nullptr;  // as in LinearTask
  const float* gate_bias = nullptr;         // [n_out] or null
  const float* up_bias = nullptr;
};

// Chooses experts for each row: the n_used best of logits W x, of equal ones those with the lowest
// number, and what each counts for: e^logit over the sum of those of the chosen, or of all.
struct RouteTask {
  const float* x = nullptr;  // [n_rows, x_stride]
  std::int64_t x_stride = 0;
  int n_rows = 0;
  const WeightMatrix* router = nullptr;  // [n_experts, n_in]
  const float* bias = nullptr;           // [n_experts] or null
  int n_used = 0;                        // 1..n_experts
  bool of_chosen = true;                 // weights of a row sum up to 1
  std::int32_t* chosen = nullptr;        // [n_rows, n_used], best first
  float* weights = nullptr;              // [n_rows, n_used], NaN where a logit is not finite
};

// The matrices of one kind of all experts, of one shape.
using ExpertMatrices = std::span<const std::unique_ptr<WeightMatrix>>;

// dst[r] += sum over k of weights[r, k] * (Wd (activation(Wg x[r] + bg) * (Wu x[r] + bu)) + bd)
// with the matrices of expert chosen[r, k], summed in the order of k. Rows that choose the same
// expert share the reading of it, and nothing else: a row has the bits it has alone.
struct ExpertsTask {
  const float* x = nullptr;  // [n_rows, x_stride]
  std::int64_t x_stride = 0;
  int n_rows = 0;
  int n_used = 0;
  const std::int32_t* chosen = nullptr;  // [n_rows, n_used], distinct in a row
  const float* weights = nullptr;        // [n_rows, n_used]
  ExpertMatrices gate, up, down;         // [n_experts], of a device one stack
  const float* gate_bias = nullptr;      // [n_experts, n_out] or null
  const float* up_bias = nullptr;
  const float* down_bias = nullptr;
  Activation activation = Activation::kSilu;
  float* dst = nullptr;  // [n_rows, dst_stride]
  std::int64_t dst_stride = 0;
};

// dst[r, g n + i] = norm(x[r, g n ..])[i] for the n_groups groups of n values of each row; dst may
// be x.
struct NormTask {
  const float* x = nullptr;  // [n_rows, x_stride]
  std::int64_t x_stride = 0;
  std::int64_t x_group = 0;  // from one group of x to the next; 0: n
  int n_rows = 0;
  int n_groups = 1;
  std::int64_t n = 0;
  Norm norm;  // of n values; the kind is not kNone
  float* dst = nullptr;
  std::int64_t dst_stride = 0;
  bool accumulate = false;  // dst += instead of dst =
};

// x[r, g n + i] *= activation(gate[r, g gate_group + i]) for the n_groups groups of n values of
// each row.
struct GateTask {
  float* x = nullptr;  // [n_rows, x_stride]
  std::int64_t x_stride = 0;
  int n_rows = 0;
  int n_groups = 1;
  std::int64_t n = 0;
  const float* gate = nullptr;  // [n_rows, gate_stride]
  std::int64_t gate_stride = 0;
  std::int64_t gate_group = 0;
  Activation activation = Activation::kSigmoid;
};

// The gated delta rule. Of a row c = silu of the convolution of its inputs and those of the rows
// before it; per head q and k, normalised to length 1, q also divided by sqrt(key_dim), and v, of
// c; g = e^(decay softplus(alpha + step_bias)), b = sigmoid(beta):
//   S <- g S;  S <- S + k (b (v - S^T k))^T;  o = S^T q
// and out = norm(o) silu(gate). A row's result depends only on the rows it follows.
struct RecurrentTask {
  RecurrentShape shape;
  int n_rows = 0;
  const float* const* inputs = nullptr;   // [n_rows] as recurrent_layout.h says
  const std::int32_t* parents = nullptr;  // [n_rows], -1: the state; null for a chain
  float* state = nullptr;                 // with a chain's rows in it afterwards; a tree leaves it
  const float* conv = nullptr;            // [n_channels, n_taps], oldest row first
  const float* decay = nullptr;           // [n_heads], negative
  const float* step_bias = nullptr;       // [n_heads]
  float* out = nullptr;                   // [n_rows, out_stride]; null: only the state is wanted
  std::int64_t out_stride = 0;
  Norm norm = {};               // of value_dim values
  const float* gate = nullptr;  // [n_rows, gate_stride]
  std::int64_t gate_stride = 0;
};

// Rotates q in place and k on its way into the cache, and stores k and v.
struct RopeStoreTask {
  int n_rows = 0;
  int n_heads = 0, n_kv_heads = 0, head_dim = 0;
  int n_rot = 0;                   // rotated dimensions, even, <= head_dim; 0: no rotation
  bool interleaved = false;        // pairs (2i, 2i+1) instead of (i, i + n_rot/2)
  const float* cos_sin = nullptr;  // [n_rows, n_rot]: cos then sin, n_rot/2 each
  float* q = nullptr;              // [n_rows, q_stride]
  const float* k = nullptr;        // [n_rows, k_stride]
  const float* v = nullptr;        // [n_rows, v_stride]
  std::int64_t q_stride = 0, k_stride = 0, v_stride = 0;
  KvLayerView cache;
  int first_slot = 0;  // row r goes to slot first_slot + r
};

// out[r] = softmax(scale * q[r] K^T) V over the first_slot committed slots, the row's ancestors
// within this batch and itself; with a window only over the last `window` of these. A soft cap
// makes soft_cap * tanh(score / soft_cap) of each score. A head's sink is one more score of the
// softmax, as it is, without a value. Logical positions are cut into chunks of
// kKvChunk; a row's result depends only on the logical sequence it sees, not on slots, rows or
// threads.
struct AttentionTask {
  int n_rows = 0;
  int n_heads = 0, n_kv_heads = 0, head_dim = 0;
  float scale = 0;
  const float* q = nullptr;  // [n_rows, q_stride]
  float* out = nullptr;      // [n_rows, out_stride]
  std::int64_t q_stride = 0, out_stride = 0;
  KvLayerView cache;
  int first_slot = 0;  // row r sits in slot first_slot + r; slots below are committed
  const std::int32_t* parents = nullptr;  // [n_rows], -1: the committed part; null for a chain
  int window = 0;                         // 0: none
  float soft_cap = 0;                     // 0: none
  const float* sinks = nullptr;           // [n_heads] or null
};

// The output head and what its logits are wanted for, in one go: rows of logits are only written
// when somebody reads them. Of equal logits the lowest id is better.
struct HeadTask {
  const float* x = nullptr;  // [n_rows, x_stride]
  std::int64_t x_stride = 0;
  int n_rows = 0;
  Norm norm;
  const WeightMatrix* weight = nullptr;
  const float* bias = nullptr;  // [n_out] or null
  std::int64_t n_tokens = 0;    // <= n_out; rows behind are padding
  float soft_cap = 0;           // of logits, as of scores in AttentionTask; 0: none
  // Blocks of kHeadBlock tokens to compute, ascending and distinct; empty: all. The other tokens
  // count as -infinity.
  std::span<const std::int32_t> blocks;
  int top_k = 1;  // 1..kMaxTopK
  // [n_rows, top_k] best first, token -1 behind the last; the first is -1 when a logit is NaN or
  // the largest is not finite.
  TopToken* top = nullptr;
  float* log_sum_exp = nullptr;  // [n_rows] or null
  float* logits = nullptr;       // [n_rows, logits_stride] or null
  std::int64_t logits_stride = 0;
};

struct BackendInfo {
  std::string name;         // "cpu"
  std::string description;  // e.g. "avx512_vnni, 2 threads"
  int n_threads = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;
  [[nodiscard]] virtual BackendInfo info() const = 0;

  // Prepares a matrix of GGUF rows ([n_out] rows of n_in weights) for this device; reads `data`
  // only during the call, unless the result is a view. Throws Error(kResource) when memory is
  // short.
  [[nodiscard]] virtual std::unique_ptr<WeightMatrix> load_matrix(
      DType dtype, std::int64_t n_out, std::int64_t n_in, std::span<const std::byte> data) = 0;
  // Likewise, but a view where the backend can read the data where it is: slower, in no memory.
  [[nodiscard]] virtual std::unique_ptr<WeightMatrix> map_matrix(DType dtype, std::int64_t n_out,
                                                                 std::int64_t n_in,
                                                                 std::span<const std::byte> data) {
    return load_matrix(dtype, n_out, n_in, data);
  }

  // Matrices can be kept in files and used from there, by all backends with the same number: equal
  // weights are equal bytes then, on every processor. 0: not by this backend.
  [[nodiscard]] virtual std::uint64_t packed_layout() const { return 0; }
  [[nodiscard]] virtual std::size_t packed_bytes(DType dtype, std::int64_t n_out,
                                                 std::int64_t n_in) const;
  // A matrix over WeightMatrix::packed() of another, on a boundary of 64 bytes, which must outlive
  // it.
  [[nodiscard]] virtual std::unique_ptr<WeightMatrix> use_packed(DType dtype, std::int64_t n_out,
                                                                 std::int64_t n_in,
                                                                 std::span<const std::byte> packed);

  virtual void linear(const LinearTask& task) = 0;
  virtual void gated_linear(const GatedLinearTask& task) = 0;
  virtual void rope_store(const RopeStoreTask& task) = 0;
  virtual void attention(const AttentionTask& task) = 0;
  virtual void norm(const NormTask& task) = 0;
  virtual void head(const HeadTask& task) = 0;
  // Layers that need these two are given to backends only that have them.
  virtual void gate(const GateTask& task);
  virtual void recurrent(const RecurrentTask& task);

  // Composed of the others (composed.cc), in memory that the host can read.
  virtual void route(const RouteTask& task);
  virtual void experts(const ExpertsTask& task);
};

// Whether the CPU backend keeps its own copy of matrices in the layout of its kernels, or views of
// the file's, packed piece by piece in every pass: slower, in little memory, with the same bits.
enum class Repack { kAuto, kOff };

// The CPU backend. n_threads 0: ThreadPool::default_n_threads().
[[nodiscard]] std::shared_ptr<Backend> make_cpu_backend(int n_threads,
                                                        Repack repack = Repack::kAuto);

}  // namespace specdec
