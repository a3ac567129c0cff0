#include <algorithm>
#include <array>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/packed_matrix.h"
#include "base/aligned_buffer.h"
#include "base/cpu_isa.h"
#include "base/error.h"
#include "base/thread_pool.h"

namespace specdec {
namespace {

// Weights a thread takes at a time: large enough to stream, small enough to balance two cores.
constexpr std::size_t kChunkBytes = std::size_t{64} << 10;

// The rows of one operation, dealt out evenly in groups of at most kMaxColumns.
class ColumnSplit {
 public:
  explicit ColumnSplit(int n_rows)
      : n_rows_(n_rows), n_groups_((n_rows + kMaxColumns - 1) / kMaxColumns) {}
  [[nodiscard]] int n_groups() const { return n_groups_; }
  [[nodiscard]] int first(int group) const {
    return n_rows_ / n_groups_ * group + std::min(group, n_rows_ % n_groups_);
  }
  [[nodiscard]] int size(int group) const {
    return n_rows_ / n_groups_ + (group < n_rows_ % n_groups_ ? 1 : 0);
  }
  [[nodiscard]] int group_of(int row) const {
    const int large = n_rows_ / n_groups_ + 1;
    const int n_large = n_rows_ % n_groups_;
    return row < large * n_large ? row / large : n_large + (row - large * n_large) / (large - 1);
  }

 private:
  int n_rows_;
  int n_groups_;
};

// Input of one operation, normalised and quantised in every form its matrices need.
class Panels {
 public:
  Panels(int n_rows, std::int64_t n_in) : split_(n_rows), n_in_(n_in) {}

  void want(PanelKind kind) { wanted_[static_cast<std::size_t>(kind)] = true; }

  void allocate(AlignedBuffer& buffer) {
    std::size_t used = 0;
    for (int pass = 0; pass < 2; ++pass) {
      used = 0;
      for (std::size_t kind = 0; kind < 3; ++kind) {
        if (!wanted_[kind]) continue;
        if (pass == 1) views_[kind].resize(static_cast<std::size_t>(split_.n_groups()));
        for (int g = 0; g < split_.n_groups(); ++g) {
          const auto panel_kind = static_cast<PanelKind>(kind);
          if (pass == 1) {
            views_[kind][static_cast<std::size_t>(g)] =
                panel_view(panel_kind, n_in_, split_.size(g), buffer.data() + used);
          }
          used += panel_bytes(panel_kind, n_in_, split_.size(g));
        }
      }
      if (pass == 0) buffer.require(used);
    }
  }

  // Fills the column of one row.
  void fill(const MatmulKernels& kernels, int row, const float* x) const {
    const int group = split_.group_of(row);
    for (std::size_t kind = 0; kind < 3; ++kind) {
      if (!wanted_[kind]) continue;
      kernels.quantize[kind](x, n_in_, row - split_.first(group),
                             views_[kind][static_cast<std::size_t>(group)]);
    }
  }

  [[nodiscard]] std::int64_t n_in() const { return n_in_; }
  [[nodiscard]] const ColumnSplit& split() const { return split_; }
  [[nodiscard]] const Panel& view(PanelKind kind, int group) const {
    return views_[static_cast<std::size_t>(kind)][static_cast<std::size_t>(group)];
  }

 private:
  ColumnSplit split_;
  std::int64_t n_in_;
  std::array<bool, 3> wanted_{};
  std::array<std::vector<Panel>, 3> views_;
};

// Memory that one calling thread reuses from operation to operation.
struct CallerScratch {
  AlignedBuffer panels;
  AlignedBuffer attention;
};

CallerScratch& caller_scratch() {
  thread_local CallerScratch scratch;
  return scratch;
}

const PackedMatrix& packed(const WeightMatrix* matrix) {
  return static_cast<const PackedMatrix&>(*matrix);
}

std::int64_t tiles_per_chunk(const PackedMatrix& matrix) {
  return std::max<std::int64_t>(1,
                                static_cast<std::int64_t>(kChunkBytes / matrix.tile_row_bytes()));
}

class CpuBackend final : public Backend {
 public:
  CpuBackend(CpuIsa isa, int n_threads)
      : isa_(isa), n_threads_(n_threads), matmul_(matmul_kernels(isa)), ops_(ops_kernels(isa)) {}

  [[nodiscard]] BackendInfo info() const override {
    BackendInfo info;
    info.name = "cpu";
    info.description = std::string(cpu_isa_name(isa_)) + ", " + std::to_string(n_threads_) +
                       (n_threads_ == 1 ? " thread" : " threads");
    info.n_threads = n_threads_;
    return info;
  }

  [[nodiscard]] std::unique_ptr<WeightMatrix> load_matrix(
      DType dtype, std::int64_t n_out, std::int64_t n_in,
      std::span<const std::byte> data) override {
    return std::make_unique<PackedMatrix>(dtype, n_out, n_in, data, n_threads_);
  }

  void linear(const LinearTask& task) override {
    if (task.n_rows == 0 || task.segments.empty()) return;
    Panels panels(task.n_rows, task.segments[0].weight->n_in());
    std::int64_t n_chunks = 0;
    for (const LinearSegment& segment : task.segments) {
      const PackedMatrix& matrix = packed(segment.weight);
      SPECDEC_CHECK(matrix.n_in() == task.segments[0].weight->n_in());
      panels.want(matrix.panel_kind());
      n_chunks += chunks_of(matrix);
    }
    panels.allocate(caller_scratch().panels);
    ThreadPool::shared().run(n_threads_, [&](TaskContext& context) {
      fill_panels(task.x, task.x_stride, task.n_rows, task.row_index, task.norm, panels, context);
      for (std::int64_t chunk = context.next_chunk(); chunk < n_chunks;
           chunk = context.next_chunk()) {
        std::int64_t local = chunk;
        for (const LinearSegment& segment : task.segments) {
          const std::int64_t n = chunks_of(packed(segment.weight));
          if (local < n) {
            run_chunk(segment, panels, local);
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
    Panels panels(task.n_rows, gate.n_in());
    panels.want(gate.panel_kind());
    panels.want(up.panel_kind());
    panels.allocate(caller_scratch().panels);
    const std::int64_t per_chunk = std::max<std::int64_t>(1, tiles_per_chunk(gate) / 2);
    const std::int64_t n_chunks = (gate.n_tile_rows() + per_chunk - 1) / per_chunk;
    ThreadPool::shared().run(n_threads_, [&](TaskContext& context) {
      fill_panels(task.x, task.x_stride, task.n_rows, nullptr, task.norm, panels, context);
      for (std::int64_t chunk = context.next_chunk(); chunk < n_chunks;
           chunk = context.next_chunk()) {
        const std::int64_t end = std::min(gate.n_tile_rows(), (chunk + 1) * per_chunk);
        for (std::int64_t tile = chunk * per_chunk; tile < end; ++tile)
          gated_tile(task, gate, up, panels, tile);
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

  void add(float* dst, std::int64_t dst_stride, const float* x, std::int64_t x_stride, int n_rows,
           std::int64_t n) override {
    for (int r = 0; r < n_rows; ++r) ops_.add(x + r * x_stride, n, dst + r * dst_stride);
  }

  void argmax(const float* logits, std::int64_t stride, int n_rows, std::int64_t n,
              TokenId* out) override {
    constexpr std::int64_t kPiece = 16384;
    const std::int64_t n_pieces = (n + kPiece - 1) / kPiece;
    std::vector<TokenId> best(static_cast<std::size_t>(n_pieces * n_rows));
    ThreadPool::shared().run(n_threads_, [&](TaskContext& context) {
      for (std::int64_t i = context.next_chunk(); i < n_pieces * n_rows; i = context.next_chunk()) {
        const std::int64_t first = i % n_pieces * kPiece;
        const TokenId local =
            ops_.argmax(logits + i / n_pieces * stride + first, std::min(kPiece, n - first));
        best[static_cast<std::size_t>(i)] = local < 0 ? -1 : static_cast<TokenId>(first + local);
      }
    });
    for (int r = 0; r < n_rows; ++r) {
      TokenId winner = best[static_cast<std::size_t>(r * n_pieces)];
      for (std::int64_t p = 1; p < n_pieces && winner >= 0; ++p) {
        const TokenId other = best[static_cast<std::size_t>(r * n_pieces + p)];
        if (other < 0) {
          winner = -1;
        } else if (logits[r * stride + other] > logits[r * stride + winner]) {
          winner = other;
        }
      }
      out[r] = winner;
    }
  }

 private:
  [[nodiscard]] static std::int64_t chunks_of(const PackedMatrix& matrix) {
    const std::int64_t per_chunk = tiles_per_chunk(matrix);
    return (matrix.n_tile_rows() + per_chunk - 1) / per_chunk;
  }

  // Phase 1 of an operation, ending in a barrier.
  void fill_panels(const float* x, std::int64_t x_stride, int n_rows, const std::int32_t* row_index,
                   const Norm& norm, const Panels& panels, TaskContext& context) const {
    thread_local AlignedBuffer normalised;
    const std::int64_t n_in = panels.n_in();
    if (norm.kind != Norm::Kind::kNone)
      normalised.require(static_cast<std::size_t>(n_in) * sizeof(float));
    for (int r = context.thread(); r < n_rows; r += context.n_threads()) {
      const float* row = x + (row_index == nullptr ? r : row_index[r]) * x_stride;
      if (norm.kind != Norm::Kind::kNone) {
        ops_.norm(norm, row, n_in, normalised.as<float>());
        row = normalised.as<float>();
      }
      panels.fill(matmul_, r, row);
    }
    context.barrier();
  }

  void multiply(const PackedMatrix& matrix, std::int64_t tile, const Panel& panel,
                float* out) const {
    matmul_.tile[static_cast<std::size_t>(matrix.dtype())][panel.n_cols - 1](matrix.tile_row(tile),
                                                                             panel, out);
  }

  void run_chunk(const LinearSegment& segment, const Panels& panels, std::int64_t chunk) const {
    const PackedMatrix& matrix = packed(segment.weight);
    const std::int64_t per_chunk = tiles_per_chunk(matrix);
    const std::int64_t end = std::min(matrix.n_tile_rows(), (chunk + 1) * per_chunk);
    alignas(64) float out[kMaxColumns * kTileRows];
    for (std::int64_t tile = chunk * per_chunk; tile < end; ++tile) {
      const std::int64_t row0 = tile * kTileRows;
      const int n = static_cast<int>(std::min<std::int64_t>(kTileRows, matrix.n_out() - row0));
      for (int g = 0; g < panels.split().n_groups(); ++g) {
        const Panel& panel = panels.view(matrix.panel_kind(), g);
        multiply(matrix, tile, panel, out);
        for (int c = 0; c < panel.n_cols; ++c) {
          float* y = out + c * kTileRows;
          if (segment.bias != nullptr) {
            for (int i = 0; i < n; ++i) y[i] += segment.bias[row0 + i];
          }
          if (segment.activation != Activation::kNone) ops_.activate(segment.activation, y, n);
          float* dst = segment.dst + (panels.split().first(g) + c) * segment.dst_stride + row0;
          if (segment.accumulate) {
            for (int i = 0; i < n; ++i) dst[i] += y[i];
          } else {
            std::copy_n(y, n, dst);
          }
        }
      }
    }
  }

  void gated_tile(const GatedLinearTask& task, const PackedMatrix& gate, const PackedMatrix& up,
                  const Panels& panels, std::int64_t tile) const {
    alignas(64) float gate_out[kMaxColumns * kTileRows];
    alignas(64) float up_out[kMaxColumns * kTileRows];
    const std::int64_t row0 = tile * kTileRows;
    const int n = static_cast<int>(std::min<std::int64_t>(kTileRows, gate.n_out() - row0));
    for (int g = 0; g < panels.split().n_groups(); ++g) {
      const int n_cols = panels.split().size(g);
      multiply(gate, tile, panels.view(gate.panel_kind(), g), gate_out);
      multiply(up, tile, panels.view(up.panel_kind(), g), up_out);
      ops_.activate_multiply(task.activation, gate_out, up_out, n_cols * kTileRows, gate_out);
      for (int c = 0; c < n_cols; ++c) {
        std::copy_n(gate_out + c * kTileRows, n,
                    task.dst + (panels.split().first(g) + c) * task.dst_stride + row0);
      }
    }
  }

  CpuIsa isa_;
  int n_threads_;
  const MatmulKernels& matmul_;
  const OpsKernels& ops_;
};

}  // namespace

std::shared_ptr<Backend> make_cpu_backend(int n_threads, CpuIsa isa) {
  if (n_threads < 0 || n_threads > 256) {
    throw_invalid("n_threads is " + std::to_string(n_threads) +
                  "; expected 1 to 256, or 0 to choose");
  }
  return std::make_shared<CpuBackend>(isa,
                                      n_threads == 0 ? ThreadPool::default_n_threads() : n_threads);
}

std::shared_ptr<Backend> make_cpu_backend(int n_threads) {
  return make_cpu_backend(n_threads, active_cpu_isa());
}

}  // namespace specdec
