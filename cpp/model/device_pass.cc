// What a device does of a forward pass, and chains of steps that never leave it.
#include <algorithm>
#include <new>
#include <optional>
#include <string>

#include "model/pass.h"
#include "model/weights.h"

namespace specdec {

bool Model::can_chain() const noexcept { return weights_->device_embedding != nullptr; }

void Model::check_chain(const Batch& batch, int n_steps, const KvCache& cache) const {
  if (!can_chain()) {
    throw Error(ErrorCode::kUnsupported,
                file_->path() +
                    ": chains of steps need all layers, the head and the embedding on one device");
  }
  check_batch(batch, cache);
  const int n_rows = static_cast<int>(batch.tokens.size());
  if (n_steps < 1 || n_steps > kMaxChainSteps || n_rows + n_steps - 1 > kMaxBatchRows) {
    throw_invalid("a chain has 1 to " + std::to_string(kMaxChainSteps) + " steps and at most " +
                  std::to_string(kMaxBatchRows) + " rows, found " + std::to_string(n_steps) +
                  " steps after " + std::to_string(n_rows) + " rows");
  }
  const bool whole = batch.layers.first == 0 &&
                     (batch.layers.last < 0 || batch.layers.last == config_.n_layers) &&
                     batch.hidden.empty() && batch.n_present == 0 && !batch.keep_hidden;
  const bool best = batch.output == OutputKind::kArgmax || batch.output == OutputKind::kTop;
  if (!whole || !best || !is_chain(batch.parents) || batch.first_output_row != n_rows - 1) {
    throw_invalid(
        "a chain of steps begins with a chain of rows through all layers, with the best tokens "
        "after the last row as its output");
  }
}

int Model::forward_chain(const Batch& batch, int n_steps, KvCache& cache, Scratch& scratch,
                         const std::atomic<bool>* cancel) const {
  check_chain(batch, n_steps, cache);
  KvCache* const caches[] = {&cache};
  return forward_rows(batch, n_steps, caches, scratch, cancel);
}

bool Model::forward_behind(LeadingChain& chain, const Batch& batch,
                           std::span<const std::int32_t> sources, KvCache& cache, Scratch& scratch,
                           const std::function<int(const LeadingChain&)>& n_used,
                           const std::atomic<bool>* cancel) const try {
  const Model& draft = *chain.model;
  if (!can_follow(draft)) {
    throw Error(
        ErrorCode::kUnsupported,
        file_->path() + ": a pass follows a chain when all of both models is on one device");
  }
  check_batch(batch, cache);
  const auto n_rows = static_cast<int>(batch.tokens.size());
  const bool has_head = batch.output != OutputKind::kNone && batch.output != OutputKind::kHidden;
  if (n_rows > kMaxFollowingRows || sources.size() != batch.tokens.size() || !has_head ||
      batch.first_output_row >= n_rows || batch.keep_hidden || !batch.hidden.empty()) {
    throw_invalid("a pass that follows a chain has at most " + std::to_string(kMaxFollowingRows) +
                  " rows with a source each, and tokens as its output");
  }
  check_cancel(cancel);
  chain.n_done = 0;
  KvCache* const chain_caches[] = {chain.cache};
  KvCache* const caches[] = {&cache};
  std::optional<Pass> leading;
  try {
    draft.check_chain(chain.batch, chain.n_steps, *chain.cache);
    leading = draft.begin_rows(chain.batch, chain.n_steps, chain_caches, *chain.scratch, cancel);
    leading->chain = true;
    draft.prepare_head(chain.batch, *leading, *chain.scratch);
  } catch (const Error&) {
    chain.error = std::current_exception();
    return false;
  }
  for (const std::int32_t source : sources) {
    if (source >= chain.n_steps * chain.scratch->top_k_) {
      throw_invalid("source " + std::to_string(source) + " is not a result of the chain");
    }
  }
  Pass pass = begin_rows(batch, 1, caches, scratch, cancel);
  pass.sources = sources.data();
  prepare_head(batch, pass, scratch);

  bool on_chain = true;
  try {
    const bool issue_chain =
        device_->begin_pass(draft.device_pass(chain.batch, *leading, *chain.scratch));
    try {
      if (issue_chain) draft.issue_on_device(chain.batch, *leading, *chain.scratch);
      on_chain = false;
      if (device_->follow_pass(device_pass(batch, pass, scratch)))
        issue_on_device(batch, pass, scratch);
      chain.device_share = device_->finish_pass();
    } catch (...) {
      device_->abort_pass();
      throw;
    }
  } catch (const Error&) {
    if (!on_chain) throw;
    chain.error = std::current_exception();
    return false;
  }

  try {
    chain.n_done = draft.end_rows(chain.batch, *leading, *chain.scratch);
    chain.cache->advance(leading->n_rows + chain.n_done - 1);
  } catch (const Error&) {  // its first logits are not finite
    chain.error = std::current_exception();
  }
  // Rows that nobody uses are as if they had never been fed.
  pass.n_rows = n_used(chain);
  SPECDEC_CHECK(pass.n_rows > batch.first_output_row && pass.n_rows <= n_rows);
  (void)end_rows(batch, pass, scratch);
  cache.advance(pass.n_rows);
  return true;
} catch (const std::bad_alloc&) {
  throw Error(ErrorCode::kResource, "not enough memory for a pass that follows a chain");
}

// The layers from first_device_layer_ on and the head: rows go over once and results come back
// once, also those of all steps of a chain.
void Model::run_on_device(const Batch& batch, const Pass& pass, Scratch& scratch) const {
  check_cancel(pass.cancel);
  const bool issue = device_->begin_pass(device_pass(batch, pass, scratch));
  try {
    if (issue) issue_on_device(batch, pass, scratch);
    device_->finish_pass();
  } catch (...) {
    device_->abort_pass();
    throw;
  }
}

DevicePass Model::device_pass(const Batch& batch, const Pass& pass, Scratch& scratch) const {
  const int first_layer = std::max(pass.first_layer, first_device_layer_);
  const int last_layer = std::max(pass.last_layer, first_layer);
  const bool wants_logits = pass.wants_head && batch.output == OutputKind::kLogits;
  const bool has_layers = pass.last_layer > first_device_layer_;
  return {
      .key = {.model = id_,
              .first_layer = first_layer,
              .last_layer = last_layer,
              .n_rows = pass.n_rows,
              .first_output_row = pass.first_output_row,
              .n_steps = pass.n_steps,
              .output = pass.wants_head ? static_cast<int>(batch.output) : -1,
              .top_k = pass.wants_head ? scratch.top_k_ : 0,
              .n_head_blocks = pass.wants_head ? static_cast<int>(batch.head_blocks.size()) : 0,
              .kv_type = static_cast<int>(pass.cache().shape().layout.type),
              .tree = pass.tree,
              .embeds = pass.embeds_on_device,
              .wants_hidden = pass.wants_hidden,
              .chain = pass.chain,
              .follows = pass.sources != nullptr},
      .n_rows = pass.n_rows,
      .n_steps = pass.n_steps,
      .first_slot = pass.first_slot,
      .tokens = batch.tokens.data(),
      .sources = pass.sources,
      .hidden = scratch.hidden_.as<float>(),
      .hidden_stride = pass.hidden_stride,
      .cos_sin = scratch.cos_sin_.as<float>(),
      .n_rot = config_.rope_width(),
      .parents = pass.tree ? batch.parents.data() : nullptr,
      .pages = pass.cache().device_pages(),
      .head_blocks = pass.wants_head ? batch.head_blocks : std::span<const std::int32_t>{},
      .top = pass.wants_head ? scratch.top_.data() : nullptr,
      .log_sum_exp = pass.wants_head && batch.output == OutputKind::kTop
                         ? scratch.log_sum_exp_.data()
                         : nullptr,
      .logits = wants_logits ? scratch.logits_.as<float>() : nullptr,
      .logits_stride = static_cast<std::int64_t>(scratch.logits_stride_),
      .hidden_out = pass.wants_hidden && has_layers ? scratch.hidden_.as<float>() : nullptr,
      .first_hidden_row = pass.first_output_row,
  };
}

void Model::issue_on_device(const Batch& batch, const Pass& pass, Scratch& scratch) const {
  const WorkBuffers& work = device_->work();
  const KvLayout& layout = pass.cache().shape().layout;
  const TokenId* tokens = work.tokens;
  for (int step = 0; step < pass.n_steps; ++step) {
    const Pass part = step == 0 ? pass : pass.of_step(step);
    const std::int64_t row = step == 0 ? 0 : pass.n_rows + step - 1;
    const Rows rows{
        .backend = *device_,
        .cancel = nullptr,  // issuing is quick, and half a recording is none
        .parents = pass.tree ? work.parents : nullptr,
        .hidden = work.hidden,
        .qkv = work.qkv,
        .attention = work.attention,
        .ffn = work.ffn,
        .cos_sin = work.cos_sin + row * config_.n_rot(),
    };
    if (pass.embeds_on_device) {
      device_->embed({.weight = weights_->device_embedding,
                      .tokens = tokens,
                      .n_rows = part.n_rows,
                      .dst = work.hidden,
                      .dst_stride = pass.hidden_stride,
                      .scale = config_.embedding_scale});
    }
    const int first_layer = std::max(pass.first_layer, first_device_layer_);
    for (int layer = first_layer; layer < pass.last_layer; ++layer) {
      const auto index = static_cast<std::size_t>(layer - first_device_layer_);
      const KvLayerView view{
          .layout = layout, .pages = work.pages, .page_offset = index * layout.layer_bytes()};
      run_layer(layer, part, rows, &view);
    }
    if (pass.wants_head) run_head(batch, part, rows, batch.head_blocks, scratch);
    if (step + 1 < pass.n_steps) tokens = device_->next_step();
  }
}

}  // namespace specdec
