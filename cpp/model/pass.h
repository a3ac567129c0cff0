// A forward pass on its way through the layers; only the sources of Runner include this.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "base/error.h"
#include "model/model.h"
#include "model/weights.h"

namespace specdec {

// Consecutive rows of a pass that share a cache.
struct PassPart {
  KvCache* cache;
  int first_row;
  int n_rows;
  int first_slot;               // behind which the rows are
  const std::int32_t* parents;  // among the part's rows; null: a chain
};

// A batch of one sequence.
[[nodiscard]] inline PassPart whole(KvCache& cache, const Batch& batch) {
  return {.cache = &cache,
          .first_row = 0,
          .n_rows = static_cast<int>(batch.tokens.size()),
          .first_slot = cache.length() - batch.n_present,
          .parents = is_chain(batch.parents) ? nullptr : batch.parents.data()};
}

// One forward on its way through the layers.
struct Pass {
  KvCache* cache;                   // of all rows, or
  std::span<const PassPart> parts;  // several sequences
  const std::atomic<bool>* cancel;
  bool tree;
  int n_rows;
  int n_steps;     // > 1: it goes on with what it finds
  int first_slot;  // of the one cache
  int first_layer, last_layer;
  int first_output_row;  // n_rows when nothing is wanted
  int first_needed_row;  // after the last layer: that, or 0 where its output is tapped
  bool wants_head, wants_hidden;
  bool embeds_on_device;
  std::int64_t hidden_stride, qkv_stride, attention_stride, ffn_stride;
  std::int64_t paired_stride = 0;  // of heads that draft
  std::int64_t rope_stride;  // floats from one rope's cos and sin of all rows to the next one's

  // Staged apart from other passes of the device, or behind one that is: what the rows pick of its
  // results.
  bool leads = false;
  const std::int32_t* picks = nullptr;

  // As Batch::taps, the first n_host_taps of which are taken on the host, and where they go: rows
  // of all taps.
  std::span<const std::int32_t> taps = {};
  std::size_t n_host_taps = 0;
  float* tapped = nullptr;

  [[nodiscard]] int n_fed() const { return n_rows + n_steps - 1; }
  [[nodiscard]] int n_outputs() const { return n_fed() - first_output_row; }
  // What is done to the one row more of a step.
  [[nodiscard]] Pass of_step(int step) const {
    Pass pass = *this;
    pass.first_slot += n_rows + step - 1;
    pass.n_rows = pass.n_steps = 1;
    pass.first_output_row = pass.first_needed_row = 0;
    return pass;
  }
  [[nodiscard]] int n_parts() const {
    return cache != nullptr ? 1 : static_cast<int>(parts.size());
  }
};

// Experts that the layers of a pass have read, and those that one row uses in as many layers. Of
// many rows, which read them all, the means over windows of a few.
struct ExpertReads {
  static constexpr int kMostRows = 16;
  static constexpr int kWindow = 4;
  double n_read = 0;
  double n_of_row = 0;
};

// The rows of a pass in the memory of one backend.
struct PassRows {
  Backend& backend;
  const std::atomic<bool>* cancel;  // asked between operations; null: never
  const std::int32_t* parents;      // null: a chain
  float* hidden;
  float* qkv;
  float* attention;
  float* ffn;
  const float* cos_sin;
  float* paired = nullptr;          // of heads that draft: [embedded token; feature]
  std::int32_t* experts = nullptr;  // of models that are mixtures
  float* expert_weights = nullptr;
  ExpertReads* expert_reads = nullptr;
};

// A layer at work on the rows of a pass.
struct LayerRun {
  const ModelConfig& config;
  const LayerSpec& spec;
  const PartWeights& weights;
  int layer;
  const Pass& pass;
  const PassRows& rows;
  const KvLayerView* device_view;  // of the layer's cache on the device; null: it is on the CPU

  [[nodiscard]] PassPart part(int i) const {
    if (pass.cache == nullptr) return pass.parts[static_cast<std::size_t>(i)];
    return {.cache = pass.cache,
            .first_row = 0,
            .n_rows = pass.n_rows,
            .first_slot = pass.first_slot,
            .parents = rows.parents};
  }
  [[nodiscard]] KvLayerView view_of(const PassPart& part) const {
    return device_view != nullptr ? *device_view : part.cache->layer_view(spec.cache_layer);
  }
  // After the last layer's keys and values only rows that are output matter. Rows of a chain can be
  // cut off: those before them then count as committed.
  [[nodiscard]] int first_row() const {
    return layer + 1 == pass.last_layer ? pass.first_needed_row : 0;
  }
  [[nodiscard]] int n_rows() const { return pass.n_rows - first_row(); }
};

void run_layer(const LayerRun& run);

inline void check_cancel(const std::atomic<bool>* cancel) {
  if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
    throw Error(ErrorCode::kCancelled, "the forward pass was cancelled");
  }
}

}  // namespace specdec
