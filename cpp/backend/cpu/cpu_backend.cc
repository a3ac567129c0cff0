#include <algorithm>

#include "backend/backend.h"
#include "backend/cpu/chunk_queue.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/experts.h"
#include "backend/cpu/fill_inputs.h"
#include "backend/cpu/head_reducer.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/packed_inputs.h"
#include "backend/cpu/tile_work.h"
#include "backend/cpu/wide/self_check.h"
#include "base/aligned_buffer.h"
#include "base/cpu_isa.h"
#include "base/error.h"
#include "base/thread_pool.h"

namespace specdec {
namespace {

// Memory that one calling thread reuses from operation to operation.
struct CallerScratch {
  AlignedBuffer inputs;
  AlignedBuffer attention;
  AlignedBuffer experts;
  AlignedBuffer logits;  // of a router
};

CallerScratch& caller_scratch() {
  thread_local CallerScratch scratch;
  return scratch;
}

class CpuBackend final : public Backend {
 public:
  CpuBackend(CpuIsa isa, const MatmulKernels& matmul, int n_threads, Repack repack)
      : isa_(isa),
        n_threads_(n_threads),
        repack_(repack),
        matmul_(matmul),
        ops_(ops_kernels(isa)) {}

  [[nodiscard]] BackendInfo info() const override {
    BackendInfo info;
    info.name = "cpu";
    info.description = std::string(cpu_isa_name(isa_)) + ", " + std::to_string(n_threads_) +
                       (n_threads_ == 1 ? " thread" : " threads") +
                       (repack_ == Repack::kOff ? ", weights not repacked" : "");
    info.n_threads = n_threads_;
    return info;
  }

  [[nodiscard]] std::unique_ptr<WeightMatrix> load_matrix(
      DType dtype, std::int64_t n_out, std::int64_t n_in,
      std::span<const std::byte> data) override {
    return std::make_unique<PackedMatrix>(dtype, n_out, n_in, data, isa_, n_threads_, repack_);
  }
  [[nodiscard]] std::unique_ptr<WeightMatrix> map_matrix(DType dtype, std::int64_t n_out,
                                                         std::int64_t n_in,
                                                         std::span<const std::byte> data) override {
    return std::make_unique<PackedMatrix>(dtype, n_out, n_in, data, isa_, n_threads_, Repack::kOff);
  }

  [[nodiscard]] std::uint64_t packed_layout() const override {
    return repack_ == Repack::kOff ? 0 : tile_layout(isa_);
  }
  [[nodiscard]] std::size_t packed_bytes(DType dtype, std::int64_t n_out,
                                         std::int64_t n_in) const override {
    const TileFormat& format = tile_format(dtype);
    return static_cast<std::size_t>((n_out + kTileRows - 1) / kTileRows) *
           static_cast<std::size_t>((n_in + format.unit - 1) / format.unit) * format.tile_bytes;
  }
  [[nodiscard]] std::unique_ptr<WeightMatrix> use_packed(
      DType dtype, std::int64_t n_out, std::int64_t n_in,
      std::span<const std::byte> packed) override {
    return std::make_unique<PackedMatrix>(dtype, n_out, n_in, isa_, packed);
  }

  void linear(const LinearTask& task) override {
    if (task.n_rows == 0 || task.segments.empty()) return;
    PackedInputs inputs(matmul_, task.n_rows, task.segments[0].weight->n_in());
    for (const LinearSegment& segment : task.segments) {
      const PackedMatrix& matrix = packed(segment.weight);
      SPECDEC_CHECK(matrix.n_in() == task.segments[0].weight->n_in());
      inputs.want(matrix.input_kind(), matrix.dtype());
    }
    inputs.allocate(caller_scratch().inputs);
    std::int64_t n_chunks = 0;
    for (const LinearSegment& segment : task.segments)
      n_chunks += chunks_of(packed(segment.weight), inputs);
    ChunkQueue queue(n_chunks, n_threads_);
    ThreadPool::shared().run(n_threads_, [&](TaskContext& context) {
      const KernelLease lease(matmul_);
      fill_inputs(ops_, task.x, task.x_stride, task.n_rows, task.row_index, task.norm, inputs,
                  context);
      for (std::int64_t chunk; (chunk = queue.take(context.thread())) >= 0;) {
        std::int64_t local = chunk;
        for (const LinearSegment& segment : task.segments) {
          const std::int64_t n = chunks_of(packed(segment.weight), inputs);
          if (local < n) {
            run_chunk(segment, inputs, local);
            break;
          }
          local -= n;
        }
      }
    });
  }

  void gated_linear(const GatedLinearTask& task) override {
    if (task.n_rows == 0) return;
    const PackedMatrix& gate = packed(task.gate);
    const PackedMatrix& up = packed(task.up);
    SPECDEC_CHECK(gate.n_in() == up.n_in() && gate.n_out() == up.n_out());
    PackedInputs inputs(matmul_, task.n_rows, gate.n_in());
    inputs.want(gate.input_kind(), gate.dtype());
    inputs.want(up.input_kind(), up.dtype());
    inputs.allocate(caller_scratch().inputs);
    const bool in_turns = takes_turns(gate, inputs) && !up.is_view();
    const std::int64_t per_chunk =
        tiles_per_chunk(gate.n_tile_rows(), gate.tile_row_bytes() + up.tile_row_bytes(), n_threads_,
                        in_turns ? turns().chunk_bytes : kChunkBytes);
    ChunkQueue queue((gate.n_tile_rows() + per_chunk - 1) / per_chunk, n_threads_);
    ThreadPool::shared().run(n_threads_, [&](TaskContext& context) {
      const KernelLease lease(matmul_);
      fill_inputs(ops_, task.x, task.x_stride, task.n_rows, task.row_index, task.norm, inputs,
                  context);
      for (std::int64_t chunk; (chunk = queue.take(context.thread())) >= 0;) {
        const std::int64_t first = chunk * per_chunk;
        const std::int64_t end = std::min(gate.n_tile_rows(), first + per_chunk);
        for_tiles(first, end, inputs, in_turns,
                  [&](int group, std::int64_t tile) { gated_tile(task, inputs, group, tile); });
      }
    });
  }

  void rope_store(const RopeStoreTask& task) override {
    if (task.n_rows == 0) return;
    check_rope_store(task);
    ThreadPool::shared().run(n_threads_,
                             [&](TaskContext& context) { ops_.rope_store(task, context); });
  }

  void attention(const AttentionTask& task) override {
    if (task.n_rows == 0) return;
    check_attention(task);
    AlignedBuffer& scratch = caller_scratch().attention;
    scratch.require(attention_scratch_bytes(task, n_threads_));
    std::byte* memory = scratch.data();
    ThreadPool::shared().run(n_threads_,
                             [&](TaskContext& context) { ops_.attention(task, memory, context); });
  }

  void norm(const NormTask& task) override {
    SPECDEC_CHECK(task.norm.kind != Norm::Kind::kNone && task.n > 0 && task.n_groups > 0);
    const std::int64_t n_units = std::int64_t{task.n_rows} * task.n_groups;
    const auto some = [&](std::int64_t first, std::int64_t last) {
      thread_local AlignedBuffer sum;
      if (task.accumulate) sum.require(static_cast<std::size_t>(task.n) * sizeof(float));
      for (std::int64_t unit = first; unit < last; ++unit) {
        const std::int64_t row = unit / task.n_groups;
        const std::int64_t at = unit % task.n_groups * task.n;
        float* dst = task.dst + row * task.dst_stride + at;
        float* out = task.accumulate ? sum.as<float>() : dst;
        const std::int64_t from = unit % task.n_groups * (task.x_group > 0 ? task.x_group : task.n);
        ops_.norm(task.norm, task.x + row * task.x_stride + from, task.n, out);
        if (task.accumulate) ops_.add(out, task.n, dst);
      }
    };
    in_parts(n_units, task.n, some);
  }

  void gate(const GateTask& task) override {
    in_parts(task.n_rows, std::int64_t{task.n_groups} * task.n,
             [&](std::int64_t first, std::int64_t last) {
               for (std::int64_t row = first; row < last; ++row) {
                 for (int g = 0; g < task.n_groups; ++g) {
                   float* x = task.x + row * task.x_stride + g * task.n;
                   const float* gate = task.gate + row * task.gate_stride + g * task.gate_group;
                   ops_.activate_multiply(task.activation, gate, x, task.n, x);
                 }
               }
             });
  }

  void recurrent(const RecurrentTask& task) override {
    if (task.n_rows == 0) return;
    check_recurrent(task);
    const std::size_t n_bytes = recurrent_scratch_floats(task) * sizeof(float);
    ChunkQueue queue(task.shape.n_heads, n_threads_);
    ThreadPool::shared().run(n_threads_, [&](TaskContext& context) {
      thread_local AlignedBuffer scratch;
      scratch.require(n_bytes);
      for (std::int64_t head; (head = queue.take(context.thread())) >= 0;)
        ops_.recurrent(task, static_cast<int>(head), scratch.as<float>());
    });
    if (task.parents == nullptr) keep_last_inputs(task);
  }

  void route(const RouteTask& task) override {
    const std::int64_t n_experts = task.router->n_out();
    SPECDEC_CHECK(task.n_used > 0 && task.n_used <= n_experts);
    AlignedBuffer& memory = caller_scratch().logits;
    memory.require(static_cast<std::size_t>(task.n_rows * n_experts) * sizeof(float));
    const LinearSegment segment{.weight = task.router,
                                .bias = task.bias,
                                .dst = memory.as<float>(),
                                .dst_stride = n_experts};
    linear({.x = task.x,
            .x_stride = task.x_stride,
            .n_rows = task.n_rows,
            .norm = {},
            .segments = std::span(&segment, 1)});
    in_parts(task.n_rows, n_experts, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t row = first; row < last; ++row)
        choose_experts(task, static_cast<int>(row), memory.as<float>() + row * n_experts,
                       ops_.sum_exp);
    });
  }

  void experts(const ExpertsTask& task) override {
    if (task.n_rows == 0) return;
    CpuExperts experts(task, matmul_, ops_, n_threads_, caller_scratch().experts);
    ThreadPool::shared().run(n_threads_, [&](TaskContext& context) {
      const KernelLease lease(matmul_);
      experts.run(context);
    });
  }

  void head(const HeadTask& task) override {
    if (task.n_rows == 0) return;
    const PackedMatrix& matrix = packed(task.weight);
    PackedInputs inputs(matmul_, task.n_rows, matrix.n_in());
    inputs.want(matrix.input_kind(), matrix.dtype());
    inputs.allocate(caller_scratch().inputs);
    HeadReducer reducer(task, n_threads_);
    ChunkQueue queue(reducer.n_groups(), n_threads_);
    ThreadPool::shared().run(n_threads_, [&](TaskContext& context) {
      const KernelLease lease(matmul_);
      fill_inputs(ops_, task.x, task.x_stride, task.n_rows, nullptr, task.norm, inputs, context);
      thread_local AlignedBuffer logits;  // [n_rows, kHeadGroup]
      logits.require(static_cast<std::size_t>(task.n_rows) * kHeadGroup * sizeof(float));
      for (std::int64_t group; (group = queue.take(context.thread())) >= 0;) {
        head_group(task, matrix, inputs, reducer, group, logits.as<float>());
        reducer.add(context.thread(), group, logits.as<float>(), ops_);
      }
    });
    reducer.finish();
  }

 private:
  [[nodiscard]] std::int64_t per_chunk_of(const PackedMatrix& matrix,
                                          const PackedInputs& inputs) const {
    return tiles_per_chunk(matrix.n_tile_rows(), matrix.tile_row_bytes(), n_threads_,
                           takes_turns(matrix, inputs) ? turns().chunk_bytes : kChunkBytes);
  }
  [[nodiscard]] std::int64_t chunks_of(const PackedMatrix& matrix,
                                       const PackedInputs& inputs) const {
    const std::int64_t per_chunk = per_chunk_of(matrix, inputs);
    return (matrix.n_tile_rows() + per_chunk - 1) / per_chunk;
  }

  // Calls some(first, last) for parts of n things of `n_values` each, by several threads where that
  // is worth it.
  template <class Some>
  void in_parts(std::int64_t n, std::int64_t n_values, const Some& some) const {
    constexpr std::int64_t kWorthThreads = 1 << 14;  // values
    if (n * n_values < kWorthThreads) return some(0, n);
    ThreadPool::shared().run(n_threads_, [&](TaskContext& context) {
      const auto [first, last] = part_of(n, context);
      some(first, last);
    });
  }

  void multiply(const PackedMatrix& matrix, const std::uint8_t* tiles, const PackedInput& input,
                float* out) const {
    matmul_.tile(matrix.input_kind(), matrix.dtype(), input)(tiles, input, out);
  }

  void run_chunk(const LinearSegment& segment, const PackedInputs& inputs,
                 std::int64_t chunk) const {
    const PackedMatrix& matrix = packed(segment.weight);
    const std::int64_t per_chunk = per_chunk_of(matrix, inputs);
    const std::int64_t first = chunk * per_chunk;
    const std::int64_t end = std::min(matrix.n_tile_rows(), first + per_chunk);
    for_tiles(first, end, inputs, takes_turns(matrix, inputs),
              [&](int group, std::int64_t tile) { linear_tile(segment, inputs, group, tile); });
  }

  void linear_tile(const LinearSegment& segment, const PackedInputs& inputs, int group,
                   std::int64_t tile) const {
    const PackedMatrix& matrix = packed(segment.weight);
    const std::uint8_t* tiles = tiles_of(matrix, tile, group, 0);
    alignas(64) float out[kMaxWideColumns * kTileRows];
    const std::int64_t row0 = tile * kTileRows;
    const int n = static_cast<int>(std::min<std::int64_t>(kTileRows, matrix.n_out() - row0));
    const PackedInput& input = inputs.view(matrix.input_kind(), group);
    multiply(matrix, tiles, input, out);
    for (int c = 0; c < input.n_cols; ++c) {
      float* y = out + c * kTileRows;
      if (segment.bias != nullptr) {
        for (int i = 0; i < n; ++i) y[i] += segment.bias[row0 + i];
      }
      if (segment.activation != Activation::kNone) ops_.activate(segment.activation, y, n);
      float* dst = segment.dst + (inputs.split().first(group) + c) * segment.dst_stride + row0;
      if (segment.accumulate) {
        for (int i = 0; i < n; ++i) dst[i] += y[i];
      } else {
        std::copy_n(y, n, dst);
      }
    }
  }

  // Logits of one group of blocks into out[n_rows, kHeadGroup].
  void head_group(const HeadTask& task, const PackedMatrix& matrix, const PackedInputs& inputs,
                  const HeadReducer& reducer, std::int64_t group, float* out) const {
    alignas(64) float tile_out[kMaxWideColumns * kTileRows];
    for (int b = 0; b < reducer.n_blocks(group); ++b) {
      const std::int64_t tile = reducer.block(group, b);
      const std::int64_t row0 = tile * kTileRows;
      const int n = static_cast<int>(std::min<std::int64_t>(kTileRows, matrix.n_out() - row0));
      const std::uint8_t* tiles = matrix.tile_row(tile, tile_scratch(0));
      for (int g = 0; g < inputs.split().n_groups(); ++g) {
        const PackedInput& input = inputs.view(matrix.input_kind(), g);
        multiply(matrix, tiles, input, tile_out);
        for (int c = 0; c < input.n_cols; ++c) {
          float* y = tile_out + c * kTileRows;
          if (task.bias != nullptr) {
            for (int i = 0; i < n; ++i) y[i] += task.bias[row0 + i];
          }
          std::copy_n(y, kTileRows,
                      out + (inputs.split().first(g) + c) * kHeadGroup + b * kTileRows);
        }
      }
    }
  }

  void gated_tile(const GatedLinearTask& task, const PackedInputs& inputs, int group,
                  std::int64_t tile) const {
    const PackedMatrix& gate = packed(task.gate);
    const PackedMatrix& up = packed(task.up);
    alignas(64) float gate_out[kMaxWideColumns * kTileRows];
    alignas(64) float up_out[kMaxWideColumns * kTileRows];
    const std::int64_t row0 = tile * kTileRows;
    const int n = static_cast<int>(std::min<std::int64_t>(kTileRows, gate.n_out() - row0));
    const int n_cols = inputs.split().size(group);
    multiply(gate, tiles_of(gate, tile, group, 0), inputs.view(gate.input_kind(), group), gate_out);
    multiply(up, tiles_of(up, tile, group, 1), inputs.view(up.input_kind(), group), up_out);
    for (int c = 0; c < n_cols; ++c) {
      for (int i = 0; i < n && task.gate_bias != nullptr; ++i)
        gate_out[c * kTileRows + i] += task.gate_bias[row0 + i];
      for (int i = 0; i < n && task.up_bias != nullptr; ++i)
        up_out[c * kTileRows + i] += task.up_bias[row0 + i];
    }
    ops_.activate_multiply(task.activation, gate_out, up_out, n_cols * kTileRows, gate_out);
    for (int c = 0; c < n_cols; ++c) {
      std::copy_n(gate_out + c * kTileRows, n,
                  task.dst + (inputs.split().first(group) + c) * task.dst_stride + row0);
    }
  }

  CpuIsa isa_;
  int n_threads_;
  Repack repack_;
  const MatmulKernels& matmul_;
  const OpsKernels& ops_;
};

}  // namespace

std::shared_ptr<Backend> make_cpu_backend(int n_threads, CpuIsa isa, Repack repack,
                                          const MatmulKernels* matmul) {
  if (n_threads < 0 || n_threads > 256) {
    throw_invalid("n_threads is " + std::to_string(n_threads) +
                  "; expected 1 to 256, or 0 to choose");
  }
  isa = working_cpu_isa(isa);
  // What is not started counts for nothing: work is split by this number.
  const int n_started =
      ThreadPool::shared().start(n_threads == 0 ? ThreadPool::default_n_threads() : n_threads);
  return std::make_shared<CpuBackend>(isa, matmul == nullptr ? matmul_kernels(isa) : *matmul,
                                      n_started, repack);
}

std::shared_ptr<Backend> make_cpu_backend(int n_threads, Repack repack) {
  return make_cpu_backend(n_threads, active_cpu_isa(), repack);
}

}  // namespace specdec
