// Recurrent layers: what the rows are mixed by, and the way back to the state before them.
#include <array>
#include <cstring>
#include <vector>

#include "model/blocks/blocks.h"

namespace specdec {

namespace {

// Of a row in rows.qkv: what the recurrence takes in, then the gate of what it gives.
const float* gate_of(const LayerRun& run, int row) {
  return run.rows.qkv + row * run.pass.qkv_stride + run.config.recurrent.input_stride();
}

void project(const LayerRun& run) {
  std::array<LinearSegment, 4> segments;
  std::size_t n = 0;
  std::int64_t at = 0;
  for (const Part part : {Part::kQkv, Part::kRecurrentAlpha, Part::kRecurrentBeta,
                          Part::kRecurrentGates, Part::kRecurrentGate}) {
    const WeightMatrix* weight = run.weights.matrix(part);
    if (weight == nullptr) continue;
    if (part == Part::kRecurrentGate) at = run.config.recurrent.input_stride();
    segments[n++] = {.weight = weight, .dst = run.rows.qkv + at, .dst_stride = run.pass.qkv_stride};
    at += weight->n_out();
  }
  run.rows.backend.linear({.x = run.rows.hidden,
                           .x_stride = run.pass.hidden_stride,
                           .n_rows = run.pass.n_rows,
                           .norm = norm_of(run, Part::kAttentionNorm),
                           .segments = std::span(segments.data(), n)});
}

void feed(const LayerRun& run, const PassPart& part) {
  RecurrentCache& cache = *part.cache->recurrent();
  const int base = part.first_slot, first_row = part.first_row, n_rows = part.n_rows;
  const int layer = run.spec.cache_layer;
  const RecurrentCache::Tip tip = cache.begin(layer, base);
  std::vector<const float*> inputs;
  for (int position = tip.from; position < base; ++position)
    inputs.push_back(cache.input(layer, position));
  RecurrentTask task{.shape = run.config.recurrent,
                     .n_rows = base - tip.from,
                     .inputs = inputs.data(),
                     .state = tip.state,
                     .conv = run.weights.vector(Part::kRecurrentConv),
                     .decay = run.weights.vector(Part::kRecurrentDecay),
                     .step_bias = run.weights.vector(Part::kRecurrentStepBias)};
  run.rows.backend.recurrent(task);

  const int first_logged = cache.claim(layer, base, n_rows);
  inputs.clear();
  for (int row = 0; row < n_rows; ++row) {
    const float* input = run.rows.qkv + (first_row + row) * run.pass.qkv_stride;
    inputs.push_back(input);
    if (base + row < first_logged) continue;
    std::memcpy(cache.input(layer, base + row), input,
                static_cast<std::size_t>(task.shape.input_size()) * sizeof(float));
  }
  task.n_rows = n_rows;
  task.inputs = inputs.data();
  task.parents = part.parents;
  if (run.n_rows() > 0) {
    task.out = run.rows.attention + first_row * run.pass.attention_stride;
    task.out_stride = run.pass.attention_stride;
    task.norm = norm_of(run, Part::kRecurrentNorm);
    task.norm.bias = nullptr;
    task.gate = gate_of(run, first_row);
    task.gate_stride = run.pass.qkv_stride;
  }
  run.rows.backend.recurrent(task);
  cache.note(layer, base, n_rows, task.parents != nullptr);
}

}  // namespace

void recur(const LayerRun& run) {
  project(run);
  for (int part = 0; part < run.pass.n_parts(); ++part) feed(run, run.part(part));
}

}  // namespace specdec
