// What a device does of a forward pass, and steps that never leave it.
#include <algorithm>
#include <string>

#include "model/pass.h"
#include "model/runner.h"

namespace specdec {

void Runner::check_steps(const Batch& batch, int n_steps, const KvCache& cache) const {
  if (!model_.can_run_steps()) {
    throw Error(ErrorCode::kUnsupported,
                model_.file()->path() +
                    ": steps of a chain need all layers, the head and the embedding on one device");
  }
  check_batch(batch, model_.config(), cache);
  const int n_rows = static_cast<int>(batch.tokens.size());
  if (n_steps < 1 || n_steps > kMaxSteps || n_rows + n_steps - 1 > kMaxBatchRows) {
    throw_invalid("a chain has 1 to " + std::to_string(kMaxSteps) + " steps and at most " +
                  std::to_string(kMaxBatchRows) + " rows, found " + std::to_string(n_steps) +
                  " steps after " + std::to_string(n_rows) + " rows");
  }
  const bool whole = batch.layers.first == 0 &&
                     (batch.layers.last < 0 || batch.layers.last == model_.config().n_layers) &&
                     batch.hidden.empty() && batch.n_present == 0 && !batch.keep_hidden &&
                     batch.taps.empty();
  const bool best = batch.output == RowOutput::kArgmax || batch.output == RowOutput::kTop;
  if (!whole || !best || !is_chain(batch.parents) || batch.first_output_row != n_rows - 1) {
    throw_invalid(
        "steps of a chain begin with a chain of rows through all layers, with the best tokens "
        "after the last row as its output");
  }
}

int Runner::forward_steps(const Batch& batch, int n_steps, KvCache& cache,
                          const std::atomic<bool>* cancel) {
  check_steps(batch, n_steps, cache);
  return forward_rows(batch, n_steps, cache, cancel);
}

// The layers from the first of the device on and the head: rows go over once and results come back
// once, also those of all steps of a chain.
void Runner::run_on_device(const Batch& batch, const Pass& pass) {
  check_cancel(pass.cancel);
  DeviceBackend& device = *model_.device();
  const bool issue = device.begin_pass(device_pass(batch, pass));
  try {
    if (issue) issue_on_device(batch, pass);
    device.finish_pass();
  } catch (...) {
    device.abort_pass();
    throw;
  }
}

DevicePass Runner::device_pass(const Batch& batch, const Pass& pass) {
  const ModelConfig& config = model_.config();
  const int first_layer = std::max(pass.first_layer, model_.first_device_layer());
  const int last_layer = std::max(pass.last_layer, first_layer);
  const bool wants_logits = pass.wants_head && batch.output == RowOutput::kLogits;
  const bool has_layers = pass.last_layer > model_.first_device_layer();
  const std::span<const std::int32_t> taps = pass.taps.subspan(pass.n_host_taps);
  return {
      .key = {.model = model_.id(),
              .first_layer = first_layer,
              .last_layer = last_layer,
              .n_rows = pass.n_rows,
              .first_output_row = pass.first_output_row,
              .n_steps = pass.n_steps,
              .output = pass.wants_head ? static_cast<int>(batch.output) : -1,
              .top_k = pass.wants_head ? results_.top_k_ : 0,
              .n_head_blocks = pass.wants_head ? static_cast<int>(batch.head_blocks.size()) : 0,
              .kv_type = static_cast<int>(pass.cache->shape().layout.type),
              .tree = pass.tree,
              .embeds = pass.embeds_on_device,
              .wants_hidden = pass.wants_hidden,
              .leads = pass.leads,
              .follows = pass.picks != nullptr,
              .taps = {taps.begin(), taps.end()}},
      .n_rows = pass.n_rows,
      .n_steps = pass.n_steps,
      .first_slot = pass.first_slot,
      .tokens = batch.tokens.data(),
      .picks = pass.picks,
      .hidden = results_.hidden_.as<float>(),
      .hidden_stride = pass.hidden_stride,
      .cos_sin = work_.cos_sin.as<float>(),
      .n_rot = config.rope_width(),
      .parents = pass.tree ? batch.parents.data() : nullptr,
      .pages = pass.cache->device_pages(),
      .head_blocks = pass.wants_head ? batch.head_blocks : std::span<const std::int32_t>{},
      .top = pass.wants_head ? results_.top_.data() : nullptr,
      .log_sum_exp = pass.wants_head && batch.output == RowOutput::kTop
                         ? results_.log_sum_exp_.data()
                         : nullptr,
      .logits = wants_logits ? results_.logits_.as<float>() : nullptr,
      .logits_stride = static_cast<std::int64_t>(results_.logits_stride_),
      .hidden_out = pass.wants_hidden && has_layers ? results_.hidden_.as<float>() : nullptr,
      .first_hidden_row = pass.first_output_row,
      .taps_out = taps.empty() ? nullptr
                               : pass.tapped + static_cast<std::int64_t>(pass.n_host_taps) *
                                                   config.hidden_size,
      .taps_stride = static_cast<std::int64_t>(pass.taps.size()) * config.hidden_size,
      .tap_size = config.hidden_size,
  };
}

void Runner::issue_on_device(const Batch& batch, const Pass& pass) {
  const ModelConfig& config = model_.config();
  DeviceBackend& device = *model_.device();
  const WorkBuffers& work = device.work();
  const KvLayout& layout = pass.cache->shape().layout;
  const TokenId* tokens = work.tokens;
  for (int step = 0; step < pass.n_steps; ++step) {
    const Pass part = step == 0 ? pass : pass.of_step(step);
    const std::int64_t row = step == 0 ? 0 : pass.n_rows + step - 1;
    const PassRows rows{
        .backend = device,
        .cancel = nullptr,  // issuing is quick, and half a recording is none
        .parents = pass.tree ? work.parents : nullptr,
        .hidden = work.hidden,
        .qkv = work.qkv,
        .attention = work.attention,
        .ffn = work.ffn,
        .cos_sin = work.cos_sin + row * config.n_rot(),
        .experts = work.experts,
        .expert_weights = work.expert_weights,
    };
    if (pass.embeds_on_device) {
      device.embed({.weight = model_.weights().device_embedding,
                    .tokens = tokens,
                    .n_rows = part.n_rows,
                    .dst = work.hidden,
                    .dst_stride = pass.hidden_stride,
                    .scale = config.embedding_scale});
    }
    auto tap = pass.taps.begin() + static_cast<std::ptrdiff_t>(pass.n_host_taps);
    const auto save_tap = [&](int layer) {
      if (tap == pass.taps.end() || *tap != layer) return;
      device.save_tap();
      ++tap;
    };
    const int first_layer = std::max(pass.first_layer, model_.first_device_layer());
    for (int layer = first_layer; layer < pass.last_layer; ++layer) {
      const auto index = static_cast<std::size_t>(layer - model_.first_device_layer());
      const KvLayerView view{
          .layout = layout, .pages = work.pages, .page_offset = index * layout.layer_bytes()};
      save_tap(layer);
      run_layer(layer_run(layer, part, rows, &view));
    }
    save_tap(pass.last_layer);
    if (pass.wants_head) run_head(batch, part, rows);
    if (step + 1 < pass.n_steps) tokens = device.next_step();
  }
}

}  // namespace specdec
