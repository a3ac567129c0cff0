// The forward pass from top to bottom. What layers are made of is in blocks/, what a device does of
// a pass in device_pass.cc.
#include "model/pass.h"

#include <algorithm>
#include <cstring>

#include "model/blocks/blocks.h"
#include "model/runner.h"

namespace specdec {

Pass Runner::begin(const Batch& batch, int n_steps, std::span<const PassPart> parts,
                   const std::atomic<bool>* cancel) {
  const ModelConfig& config = model_.config();
  results_.has_logits_ = results_.has_top_ = results_.has_log_sum_exp_ = results_.has_hidden_ =
      false;
  results_.n_tapped_ = 0;
  const int n_rows = static_cast<int>(batch.tokens.size());
  const bool several = parts.size() > 1;
  const bool tree = !is_chain(batch.parents);
  const int first_output_row = batch.output == RowOutput::kNone ? n_rows : batch.first_output_row;
  for (const PassPart& part : parts) {
    // Nobody looks at more than the last row of a text that is read.
    const int first_output = std::max(first_output_row, part.first_row);
    const bool revocable = !batch.stays && (part.parents != nullptr ||
                                            first_output + 1 < part.first_row + part.n_rows);
    part.cache->reserve(part.n_rows - batch.n_present + n_steps - 1, batch.n_present, revocable);
  }
  const bool has_output = first_output_row < n_rows;
  const bool taps_last = !batch.taps.empty() && batch.taps.back() == config.n_layers;
  const bool embeds_on_device = model_.weights().device_embedding != nullptr &&
                                batch.layers.first == 0 && batch.hidden.empty();
  // What enters the first layer of the device comes from here, unless it is embedded there.
  const auto first_tap_there =
      std::upper_bound(batch.taps.begin(), batch.taps.end(),
                       model_.first_device_layer() - (embeds_on_device ? 1 : 0));
  const Pass pass{
      .cache = several ? nullptr : parts[0].cache,
      .parts = parts,
      .cancel = cancel,
      .tree = tree,
      .n_rows = n_rows,
      .n_steps = n_steps,
      .first_slot = parts[0].first_slot,
      .first_layer = batch.layers.first,
      .last_layer = batch.layers.last < 0 ? config.n_layers : batch.layers.last,
      .first_output_row = first_output_row,
      .first_needed_row = taps_last ? 0 : first_output_row,
      .wants_head = has_output && batch.output != RowOutput::kHidden,
      .wants_hidden = has_output && (batch.output == RowOutput::kHidden || batch.keep_hidden),
      .embeds_on_device = embeds_on_device,
      .hidden_stride = padded_row(config.hidden_size),
      .qkv_stride = padded_row(config.qkv_size()),
      .attention_stride = padded_row(config.attention_size()),
      .ffn_stride = padded_row(config.intermediate_size),
      .paired_stride = config.draft_head ? padded_row(2 * std::int64_t{config.hidden_size}) : 0,
      .rope_stride = std::int64_t{n_rows + n_steps - 1} * config.n_rot(),
      .leads = n_steps > 1,
      .taps = batch.taps,
      .n_host_taps = static_cast<std::size_t>(first_tap_there - batch.taps.begin()),
      .tapped = batch.taps.empty()
                    ? nullptr
                    : rows_of(results_.taps_, n_rows,
                              config.hidden_size * static_cast<std::int64_t>(batch.taps.size())),
  };
  float* const hidden = rows_of(results_.hidden_, n_rows, pass.hidden_stride);
  (void)rows_of(work_.cos_sin, pass.n_fed(), config.rope_width());
  if (config.n_experts > 0) {
    (void)rows_of(work_.expert_weights, n_rows, config.n_experts_used);
    work_.experts.resize(static_cast<std::size_t>(n_rows * config.n_experts_used));
  }
  if (config.draft_head) {
    embed(batch, rows_of(work_.paired, n_rows, pass.paired_stride), pass.paired_stride);
    copy_hidden(batch, hidden, pass.hidden_stride);
  } else if (!batch.hidden.empty()) {
    copy_hidden(batch, hidden, pass.hidden_stride);
  } else if (!pass.embeds_on_device) {
    embed(batch, hidden, pass.hidden_stride);
  }
  place(pass);
  return pass;
}

int Runner::run(const Batch& batch, const Pass& pass) {
  const int first_device_layer = model_.first_device_layer();
  const bool on_cpu = pass.first_layer < first_device_layer;
  ExpertReads reads;
  const PassRows rows{
      .backend = *model_.backend(),
      .cancel = pass.cancel,
      .parents = pass.tree ? batch.parents.data() : nullptr,
      .hidden = results_.hidden_.as<float>(),
      .qkv = on_cpu ? rows_of(work_.qkv, pass.n_rows, pass.qkv_stride) : nullptr,
      .attention = on_cpu ? rows_of(work_.attention, pass.n_rows, pass.attention_stride) : nullptr,
      .ffn = on_cpu ? rows_of(work_.ffn, pass.n_rows, pass.ffn_stride) : nullptr,
      .cos_sin = work_.cos_sin.as<float>(),
      .paired = work_.paired.as<float>(),
      .experts = work_.experts.data(),
      .expert_weights = work_.expert_weights.as<float>(),
      .expert_reads = &reads,
  };
  const int last_on_cpu = std::min(pass.last_layer, first_device_layer);
  for (int layer = pass.first_layer; layer < last_on_cpu; ++layer) {
    tap(layer, pass);
    run_layer(layer_run(layer, pass, rows, nullptr));
  }
  tap(last_on_cpu, pass);
  if (reads.n_of_row > 0) {
    const double more = reads.n_read / reads.n_of_row - 1;
    results_.reading_ = {
        .n_rows = pass.n_rows <= ExpertReads::kMostRows ? pass.n_rows : ExpertReads::kWindow,
        .weights = 1 + model_.expert_share() * more};
  }

  if (pass.n_outputs() > 0 && model_.config().draft_head.next_tokens) norm_said(pass, rows);
  if (pass.wants_head) prepare_head(batch, pass);
  if (model_.device() != nullptr && (pass.last_layer > first_device_layer || pass.wants_head)) {
    run_on_device(batch, pass);
  } else if (pass.wants_head) {
    run_head(batch, pass, rows);
  }
  return end(batch, pass);
}

void run_layer(const LayerRun& run) {
  check_cancel(run.rows.cancel);
  if (run.spec.recurrent) {
    recur(run);
  } else {
    if (run.rows.paired != nullptr) pair_rows(run);
    keys_and_values(run);
    if (run.n_rows() > 0) attend(run);
  }
  if (run.n_rows() == 0) return;
  check_cancel(run.rows.cancel);
  // Side by side, both branches read the residual before either is added to it.
  const bool parallel = run.spec.parallel_residual;
  if (parallel) feed_forward(run);
  add_branch(run, Part::kAttentionOut, Part::kAttentionPostNorm, run.rows.attention,
             run.pass.attention_stride);
  if (!run.weights.experts(Part::kGateExperts).empty()) return add_experts(run);
  if (!parallel) feed_forward(run);
  add_branch(run, Part::kDown, Part::kFfnPostNorm, run.rows.ffn, run.pass.ffn_stride);
}

// What enters a layer, or leaves the last one, for whoever reads it.
void Runner::tap(int layer, const Pass& pass) {
  const std::span<const std::int32_t> taps = pass.taps.first(pass.n_host_taps);
  const auto at = std::find(taps.begin(), taps.end(), layer);
  if (at == taps.end()) return;
  const auto n = static_cast<std::int64_t>(model_.config().hidden_size);
  const std::int64_t stride = n * static_cast<std::int64_t>(pass.taps.size());
  float* to = pass.tapped + (at - taps.begin()) * n;
  const float* from = results_.hidden_.as<float>();
  for (int r = 0; r < pass.n_rows; ++r, to += stride, from += pass.hidden_stride)
    std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
}

int Runner::end(const Batch& batch, const Pass& pass) {
  results_.first_output_row_ = pass.first_output_row;
  if (!pass.taps.empty()) {
    results_.n_tapped_ = pass.n_rows;
    results_.n_tap_ = static_cast<std::size_t>(model_.config().hidden_size) * pass.taps.size();
  }
  if (pass.wants_hidden) {
    results_.hidden_stride_ = static_cast<std::size_t>(pass.hidden_stride);
    results_.n_hidden_ = static_cast<std::size_t>(model_.config().hidden_size);
    results_.has_hidden_ = true;
  }
  const int n_done = pass.wants_head ? check_head(batch, pass) : pass.n_steps;
  results_.n_rows_ = pass.n_rows + n_done - 1;
  return n_done;
}

LayerRun Runner::layer_run(int layer, const Pass& pass, const PassRows& rows,
                           const KvLayerView* device_view) const {
  const auto index = static_cast<std::size_t>(layer);
  return {.config = model_.config(),
          .spec = model_.config().layers[index],
          .weights = model_.weights().layers[index],
          .layer = layer,
          .pass = pass,
          .rows = rows,
          .device_view = device_view};
}

}  // namespace specdec
