// One layer of the forward pass: a block of attention, then one of the feed-forward network, by its
// LayerSpec and the tensors that the file holds.
#include <algorithm>
#include <array>

#include "model/pass.h"
#include "model/weights.h"

namespace specdec {

// A layer at work.
struct Model::LayerRun {
  const ModelConfig& config;
  const LayerSpec& spec;
  const PartWeights& weights;
  int layer;
  const Pass& pass;
  const Rows& rows;
  const KvLayerView* device_view;

  // None where the layer has no such norm.
  [[nodiscard]] Norm norm(Part weight) const {
    if (weights.vector(weight) == nullptr) return {};
    return {.kind = config.norm_kind,
            .weight = weights.vector(weight),
            .bias = weights.vector(bias_of(weight)),
            .epsilon = config.norm_epsilon};
  }
  [[nodiscard]] KvLayerView view_of(int part) const {
    return device_view != nullptr ? *device_view : pass.cache(part).layer_view(layer);
  }
  // After the last layer's keys and values only rows that are output matter. Rows of a chain can be
  // cut off: those before them then count as committed.
  [[nodiscard]] int first_row() const {
    return layer + 1 == pass.last_layer ? pass.first_output_row : 0;
  }

  void queries_keys_values() const;
  void normalise_heads() const;
  void store_keys() const;
  void attend() const;
  void feed_forward() const;
  void accumulate(Part weight, Part bias, Part post_norm, const float* x,
                  std::int64_t x_stride) const;
};

void Model::LayerRun::queries_keys_values() const {
  std::array<LinearSegment, 3> segments;
  std::size_t n = 0;
  float* dst = rows.qkv;
  for (const Part part : {Part::kQkv, Part::kQ, Part::kK, Part::kV}) {
    const WeightMatrix* weight = weights.matrix(part);
    if (weight == nullptr) continue;
    segments[n++] = {.weight = weight,
                     .bias = weights.vector(bias_of(part)),
                     .dst = dst,
                     .dst_stride = pass.qkv_stride};
    dst += weight->n_out();
  }
  rows.backend.linear({.x = rows.hidden,
                       .x_stride = pass.hidden_stride,
                       .n_rows = pass.n_rows,
                       .norm = norm(Part::kAttentionNorm),
                       .segments = std::span(segments.data(), n)});
}

void Model::LayerRun::normalise_heads() const {
  const auto heads = [&](Part weight, float* x, int n_heads) {
    if (!weights.has(weight)) return;
    rows.backend.norm({.x = x,
                       .x_stride = pass.qkv_stride,
                       .n_rows = pass.n_rows,
                       .n_groups = spec.norms_rows ? 1 : n_heads,
                       .n = std::int64_t{config.head_dim} * (spec.norms_rows ? n_heads : 1),
                       .norm = {.kind = Norm::Kind::kRms,
                                .weight = weights.vector(weight),
                                .epsilon = config.norm_epsilon},
                       .dst = x,
                       .dst_stride = pass.qkv_stride});
  };
  heads(Part::kQNorm, rows.qkv, config.n_heads);
  heads(Part::kKNorm, rows.qkv + config.q_size(), config.n_kv_heads);
}

void Model::LayerRun::store_keys() const {
  const float* cos_sin = rows.cos_sin + std::max(spec.rope, 0) * pass.rope_stride;
  for (int part = 0; part < pass.n_parts(); ++part) {
    const int row = part * pass.part_rows();
    float* qkv = rows.qkv + row * pass.qkv_stride;
    rows.backend.rope_store({.n_rows = pass.part_rows(),
                             .n_heads = config.n_heads,
                             .n_kv_heads = config.n_kv_heads,
                             .head_dim = config.head_dim,
                             .n_rot = spec.rope < 0 ? 0 : config.n_rot(),
                             .interleaved = config.ropes[0].interleaved,
                             .cos_sin = cos_sin + static_cast<std::int64_t>(row) * config.n_rot(),
                             .q = qkv,
                             .k = qkv + config.q_size(),
                             .v = qkv + config.q_size() + config.kv_size(),
                             .q_stride = pass.qkv_stride,
                             .k_stride = pass.qkv_stride,
                             .v_stride = pass.qkv_stride,
                             .cache = view_of(part),
                             .first_slot = pass.slot_of(part)});
  }
}

void Model::LayerRun::attend() const {
  // 0 when rows have caches of their own
  const int skipped = rows.parents == nullptr ? first_row() : 0;
  for (int part = 0; part < pass.n_parts(); ++part) {
    const int row = part * pass.part_rows() + skipped;
    rows.backend.attention({.n_rows = pass.part_rows() - skipped,
                            .n_heads = config.n_heads,
                            .n_kv_heads = config.n_kv_heads,
                            .head_dim = config.head_dim,
                            .scale = config.attention_scale,
                            .q = rows.qkv + row * pass.qkv_stride,
                            .out = rows.attention + row * pass.attention_stride,
                            .q_stride = pass.qkv_stride,
                            .out_stride = pass.attention_stride,
                            .cache = view_of(part),
                            .first_slot = pass.slot_of(part) + skipped,
                            .parents = rows.parents,
                            .window = spec.window,
                            .soft_cap = spec.score_cap});
  }
}

void Model::LayerRun::feed_forward() const {
  const int first = first_row();
  const float* hidden = rows.hidden + first * pass.hidden_stride;
  float* ffn = rows.ffn + first * pass.ffn_stride;
  if (spec.gated_ffn) {
    rows.backend.gated_linear({.x = hidden,
                               .x_stride = pass.hidden_stride,
                               .n_rows = pass.n_rows - first,
                               .norm = norm(Part::kFfnNorm),
                               .gate = weights.matrix(Part::kGate),
                               .up = weights.matrix(Part::kUp),
                               .activation = spec.activation,
                               .dst = ffn,
                               .dst_stride = pass.ffn_stride});
    return;
  }
  const LinearSegment segment{.weight = weights.matrix(Part::kUp),
                              .bias = weights.vector(Part::kUpBias),
                              .dst = ffn,
                              .dst_stride = pass.ffn_stride,
                              .activation = spec.activation};
  rows.backend.linear({.x = hidden,
                       .x_stride = pass.hidden_stride,
                       .n_rows = pass.n_rows - first,
                       .norm = norm(Part::kFfnNorm),
                       .segments = std::span(&segment, 1)});
}

// hidden += W x + b, or the norm of that, of the rows that matter. q, k and v are done with then.
void Model::LayerRun::accumulate(Part weight, Part bias, Part post_norm, const float* x,
                                 std::int64_t x_stride) const {
  const int first = first_row();
  float* hidden = rows.hidden + first * pass.hidden_stride;
  float* branch = rows.qkv + first * pass.qkv_stride;
  const LinearSegment segment{.weight = weights.matrix(weight),
                              .bias = weights.vector(bias),
                              .dst = spec.post_norms ? branch : hidden,
                              .dst_stride = spec.post_norms ? pass.qkv_stride : pass.hidden_stride,
                              .accumulate = !spec.post_norms};
  rows.backend.linear({.x = x + first * x_stride,
                       .x_stride = x_stride,
                       .n_rows = pass.n_rows - first,
                       .norm = {},
                       .segments = std::span(&segment, 1)});
  if (!spec.post_norms) return;
  rows.backend.norm({.x = branch,
                     .x_stride = pass.qkv_stride,
                     .n_rows = pass.n_rows - first,
                     .n = config.hidden_size,
                     .norm = norm(post_norm),
                     .dst = hidden,
                     .dst_stride = pass.hidden_stride,
                     .accumulate = true});
}

void Model::run_layer(int layer, const Pass& pass, const Rows& rows,
                      const KvLayerView* device_view) const {
  const auto index = static_cast<std::size_t>(layer);
  const LayerRun run{config_,    config_.layers[index], weights_->layers[index], layer, pass, rows,
                     device_view};
  check_cancel(rows.cancel);
  run.queries_keys_values();
  run.normalise_heads();
  run.store_keys();
  if (run.first_row() == pass.n_rows) return;
  run.attend();
  check_cancel(rows.cancel);
  // Side by side, both branches read the residual before either is added to it.
  const bool parallel = run.spec.parallel_residual;
  if (parallel) run.feed_forward();
  run.accumulate(Part::kAttentionOut, Part::kAttentionOutBias, Part::kAttentionPostNorm,
                 rows.attention, pass.attention_stride);
  if (!parallel) run.feed_forward();
  run.accumulate(Part::kDown, Part::kDownBias, Part::kFfnPostNorm, rows.ffn, pass.ffn_stride);
}

}  // namespace specdec
