// Attention: q, k and v of the rows, keys and values into the cache, and what the rows see there.
#include "model/blocks/blocks.h"

#include <algorithm>
#include <array>

namespace specdec {

namespace {

// Where q, k and v of a row are. With gates, [q; gate] of each head comes first, and q, normalised,
// goes behind v.
struct Places {
  int q, k, v;

  explicit Places(const LayerRun& run) : q(0), k(run.config.q_size()), v(k + run.config.kv_size()) {
    if (!run.spec.gates_attention) return;
    k += run.config.q_size();
    v += run.config.q_size();
    q = v + run.config.kv_size();
  }
};

void project(const LayerRun& run) {
  std::array<LinearSegment, 3> segments;
  std::size_t n = 0;
  float* dst = run.rows.qkv;
  for (const Part part : {Part::kQkv, Part::kQ, Part::kK, Part::kV}) {
    const WeightMatrix* weight = run.weights.matrix(part);
    if (weight == nullptr) continue;
    segments[n++] = {.weight = weight,
                     .bias = run.weights.vector(bias_of(part)),
                     .dst = dst,
                     .dst_stride = run.pass.qkv_stride};
    dst += weight->n_out();
  }
  const bool paired = run.rows.paired != nullptr && run.weights.matrix(Part::kJoin) == nullptr;
  run.rows.backend.linear({.x = paired ? run.rows.paired : run.rows.hidden,
                           .x_stride = paired ? run.pass.paired_stride : run.pass.hidden_stride,
                           .n_rows = run.pass.n_rows,
                           .norm = paired ? Norm{} : norm_of(run, Part::kAttentionNorm),
                           .segments = std::span(segments.data(), n)});
}

void normalise_heads(const LayerRun& run) {
  const Places at(run);
  const auto heads = [&](Part weight, const float* x, int x_group, int n_heads, float* dst) {
    if (!run.weights.has(weight)) return;
    run.rows.backend.norm(
        {.x = x,
         .x_stride = run.pass.qkv_stride,
         .x_group = x_group,
         .n_rows = run.pass.n_rows,
         .n_groups = run.spec.norms_rows ? 1 : n_heads,
         .n = std::int64_t{run.config.head_dim} * (run.spec.norms_rows ? n_heads : 1),
         .norm = {.kind = Norm::Kind::kRms,
                  .weight = run.weights.vector(weight),
                  .epsilon = run.config.norm_epsilon},
         .dst = dst,
         .dst_stride = run.pass.qkv_stride});
  };
  float* const qkv = run.rows.qkv;
  heads(Part::kQNorm, qkv, run.spec.gates_attention ? 2 * run.config.head_dim : 0,
        run.config.n_heads, qkv + at.q);
  heads(Part::kKNorm, qkv + at.k, 0, run.config.n_kv_heads, qkv + at.k);
}

void store(const LayerRun& run) {
  const Places at(run);
  const float* cos_sin = run.rows.cos_sin + std::max(run.spec.rope, 0) * run.pass.rope_stride;
  for (int i = 0; i < run.pass.n_parts(); ++i) {
    const PassPart part = run.part(i);
    float* qkv = run.rows.qkv + part.first_row * run.pass.qkv_stride;
    run.rows.backend.rope_store(
        {.n_rows = part.n_rows,
         .n_heads = run.config.n_heads,
         .n_kv_heads = run.config.n_kv_heads,
         .head_dim = run.config.head_dim,
         .n_rot = run.spec.rope < 0 ? 0 : run.config.n_rot(),
         .interleaved = run.config.ropes[0].interleaved,
         .cos_sin = cos_sin + static_cast<std::int64_t>(part.first_row) * run.config.n_rot(),
         .q = qkv + at.q,
         .k = qkv + at.k,
         .v = qkv + at.v,
         .q_stride = run.pass.qkv_stride,
         .k_stride = run.pass.qkv_stride,
         .v_stride = run.pass.qkv_stride,
         .cache = run.view_of(part),
         .first_slot = part.first_slot});
  }
}

}  // namespace

void keys_and_values(const LayerRun& run) {
  project(run);
  normalise_heads(run);
  store(run);
}

void attend(const LayerRun& run) {
  const Places at(run);
  for (int i = 0; i < run.pass.n_parts(); ++i) {
    const PassPart part = run.part(i);
    const int skipped =
        part.parents == nullptr ? std::clamp(run.first_row() - part.first_row, 0, part.n_rows) : 0;
    if (skipped == part.n_rows) continue;
    const int row = part.first_row + skipped;
    run.rows.backend.attention({.n_rows = part.n_rows - skipped,
                                .n_heads = run.config.n_heads,
                                .n_kv_heads = run.config.n_kv_heads,
                                .head_dim = run.config.head_dim,
                                .scale = run.config.attention_scale,
                                .q = run.rows.qkv + at.q + row * run.pass.qkv_stride,
                                .out = run.rows.attention + row * run.pass.attention_stride,
                                .q_stride = run.pass.qkv_stride,
                                .out_stride = run.pass.attention_stride,
                                .cache = run.view_of(part),
                                .first_slot = part.first_slot + skipped,
                                .parents = part.parents,
                                .window = run.spec.window,
                                .soft_cap = run.spec.score_cap,
                                .sinks = run.weights.vector(Part::kAttentionSinks)});
  }
  if (!run.spec.gates_attention) return;
  const int first = run.first_row();
  run.rows.backend.gate({.x = run.rows.attention + first * run.pass.attention_stride,
                         .x_stride = run.pass.attention_stride,
                         .n_rows = run.n_rows(),
                         .n_groups = run.config.n_heads,
                         .n = run.config.head_dim,
                         .gate = run.rows.qkv + run.config.head_dim + first * run.pass.qkv_stride,
                         .gate_stride = run.pass.qkv_stride,
                         .gate_group = 2 * std::int64_t{run.config.head_dim},
                         .activation = Activation::kSigmoid});
}

}  // namespace specdec
