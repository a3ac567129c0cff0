// The forward pass from top to bottom; what one layer does is in run_layer.cc.
#include "model/model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <new>

#include "model/pass.h"
#include "model/weights.h"
#include "quant/codec.h"

namespace specdec {

namespace {

// Row strides in floats: rows start on cache lines.
std::int64_t padded(std::int64_t n) { return padded_row(n); }

// Room for n_rows rows of `stride` floats.
float* rows_of(AlignedBuffer& buffer, int n_rows, std::int64_t stride) {
  buffer.require(static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(stride) *
                 sizeof(float));
  return buffer.as<float>();
}

}  // namespace

KvShape Model::kv_shape(KvType type) const {
  return {.n_layers = config_.n_layers,
          .layout = {.type = type, .n_kv_heads = config_.n_kv_heads, .head_dim = config_.head_dim},
          .n_device_layers = n_device_layers()};
}

std::size_t Model::kv_bytes_per_token(KvType type) const {
  const KvLayout layout{
      .type = type, .n_kv_heads = config_.n_kv_heads, .head_dim = config_.head_dim};
  return layout.layer_bytes() * static_cast<std::size_t>(config_.n_layers) / kKvChunk;
}

void Model::check_batch(const Batch& batch, const KvCache& cache) const {
  const std::size_t n_rows = batch.tokens.size();
  if (n_rows < 1 || n_rows > kMaxBatchRows) {
    throw_invalid("a batch has 1 to " + std::to_string(kMaxBatchRows) + " rows, found " +
                  std::to_string(n_rows));
  }
  for (std::size_t r = 0; r < n_rows; ++r) {
    if (batch.tokens[r] < 0 || batch.tokens[r] >= config_.n_tokens) {
      throw_invalid("token " + std::to_string(batch.tokens[r]) + " at index " + std::to_string(r) +
                    " is not in [0, " + std::to_string(config_.n_tokens) + ")");
    }
  }
  if (!batch.parents.empty() && batch.parents.size() != n_rows) {
    throw_invalid("a batch of " + std::to_string(n_rows) + " rows has " +
                  std::to_string(batch.parents.size()) + " parents");
  }
  for (std::size_t r = 0; r < batch.parents.size(); ++r) {
    if (batch.parents[r] < -1 || batch.parents[r] >= static_cast<std::int32_t>(r)) {
      throw_invalid("parent " + std::to_string(batch.parents[r]) + " of row " + std::to_string(r) +
                    " is not an earlier row or -1");
    }
  }
  if (batch.first_output_row < 0 || batch.first_output_row > static_cast<int>(n_rows)) {
    throw_invalid("first_output_row " + std::to_string(batch.first_output_row) + " is not in [0, " +
                  std::to_string(n_rows) + "]");
  }
  const int last = batch.layers.last < 0 ? config_.n_layers : batch.layers.last;
  if (batch.layers.first < 0 || batch.layers.first >= last || last > config_.n_layers) {
    throw_invalid("layers [" + std::to_string(batch.layers.first) + ", " + std::to_string(last) +
                  ") are not a part of [0, " + std::to_string(config_.n_layers) + ")");
  }
  if (batch.output == OutputKind::kTop && (batch.top_k < 1 || batch.top_k > kMaxHeadTopK)) {
    throw_invalid("top_k is " + std::to_string(batch.top_k) + "; expected 1 to " +
                  std::to_string(kMaxHeadTopK));
  }
  std::int32_t last_block = -1;
  for (const std::int32_t block : batch.head_blocks) {
    if (block <= last_block || block * std::int64_t{kHeadBlock} >= config_.n_tokens) {
      throw_invalid("head block " + std::to_string(block) +
                    " is out of order or behind the last token");
    }
    last_block = block;
  }
  if (!batch.hidden.empty() &&
      batch.hidden.size() != n_rows * static_cast<std::size_t>(config_.hidden_size)) {
    throw_invalid("the hidden input has " + std::to_string(batch.hidden.size()) +
                  " numbers, expected " + std::to_string(n_rows) + " rows of " +
                  std::to_string(config_.hidden_size));
  }
  if (batch.n_present < 0 || batch.n_present > std::min(static_cast<int>(n_rows), cache.length())) {
    throw_invalid(std::to_string(batch.n_present) + " rows cannot be present in a batch of " +
                  std::to_string(n_rows) + " after " + std::to_string(cache.length()) +
                  " positions");
  }
  const KvShape& shape = cache.shape();
  if (shape.n_layers != config_.n_layers || shape.layout.n_kv_heads != config_.n_kv_heads ||
      shape.layout.head_dim != config_.head_dim) {
    throw_invalid("the cache was made for a model of another shape");
  }
}

void Model::embed(const Batch& batch, float* out, std::int64_t stride) const {
  const std::size_t n = static_cast<std::size_t>(config_.hidden_size);
  const DType dtype = weights_->embedding->dtype;
  const std::size_t n_row_bytes = static_cast<std::size_t>(row_bytes(dtype, n));
  for (std::size_t r = 0; r < batch.tokens.size(); ++r) {
    float* row = out + static_cast<std::int64_t>(r) * stride;
    if (!batch.hidden.empty()) {
      std::memcpy(row, batch.hidden.data() + r * n, n * sizeof(float));
      continue;
    }
    const auto token = static_cast<std::size_t>(batch.tokens[r]);
    codec(dtype).dequantize(weights_->embedding_data.data() + token * n_row_bytes, row,
                            static_cast<std::int64_t>(n));
    if (config_.embedding_scale == 1) continue;
    for (std::size_t i = 0; i < n; ++i) row[i] *= config_.embedding_scale;
  }
}

// Positions follow from depth; cos and sin come from a table that lists each position once.
void Model::fill_rope(const Batch& batch, const Pass& pass, Scratch& scratch) const {
  const auto n_rows = static_cast<std::size_t>(pass.n_fed());
  const std::size_t n_rot = static_cast<std::size_t>(config_.n_rot());
  const std::size_t width = static_cast<std::size_t>(config_.rope_width());
  const std::size_t n_pairs = n_rot / 2;
  scratch.positions_.resize(n_rows);
  int last_position = 0;
  for (std::size_t r = 0; r < n_rows; ++r) {
    const std::int32_t parent = pass.each_own           ? -1
                                : batch.parents.empty() ? static_cast<std::int32_t>(r) - 1
                                                        : batch.parents[r];
    const int position = parent < 0 ? pass.slot_of(static_cast<int>(r))
                                    : scratch.positions_[static_cast<std::size_t>(parent)] + 1;
    scratch.positions_[r] = position;
    last_position = std::max(last_position, position);
  }
  std::vector<float>& table = scratch.rope_table_;
  if (scratch.rope_owner_ != id_) {
    table.clear();
    scratch.rope_owner_ = id_;
  }
  for (std::size_t p = table.size() / width; p <= static_cast<std::size_t>(last_position); ++p) {
    table.resize((p + 1) * width);
    for (std::size_t k = 0; k < ropes_.size(); ++k) {
      float* at = table.data() + p * width + k * n_rot;
      for (std::size_t i = 0; i < n_pairs; ++i) {
        const double angle = static_cast<double>(p) * ropes_[k].angles[i];
        at[i] = static_cast<float>(std::cos(angle) * ropes_[k].magnitude);
        at[n_pairs + i] = static_cast<float>(std::sin(angle) * ropes_[k].magnitude);
      }
    }
  }
  for (std::size_t k = 0; k < ropes_.size(); ++k) {
    for (std::size_t r = 0; r < n_rows; ++r) {
      const auto position = static_cast<std::size_t>(scratch.positions_[r]);
      std::memcpy(scratch.cos_sin_.as<float>() + (k * n_rows + r) * n_rot,
                  table.data() + position * width + k * n_rot, n_rot * sizeof(float));
    }
  }
}

// Room for the results of the head.
void Model::prepare_head(const Batch& batch, const Pass& pass, Scratch& scratch) const {
  const int n_outputs = pass.n_outputs();
  const std::int64_t stride = padded(config_.n_tokens);
  scratch.top_k_ = batch.output == OutputKind::kTop ? batch.top_k : 1;
  scratch.top_.resize(static_cast<std::size_t>(n_outputs) *
                      static_cast<std::size_t>(scratch.top_k_));
  if (batch.output == OutputKind::kTop)
    scratch.log_sum_exp_.resize(static_cast<std::size_t>(n_outputs));
  if (batch.output == OutputKind::kLogits) (void)rows_of(scratch.logits_, n_outputs, stride);
  scratch.logits_stride_ = static_cast<std::size_t>(stride);
  scratch.n_logits_ = static_cast<std::size_t>(config_.n_tokens);
}

void Model::run_head(const Batch& batch, const Pass& pass, const Rows& rows,
                     std::span<const std::int32_t> blocks, Scratch& scratch) const {
  const PartWeights& w = weights_->model;
  check_cancel(rows.cancel);
  rows.backend.head(
      {.x = rows.hidden + pass.first_output_row * pass.hidden_stride,
       .x_stride = pass.hidden_stride,
       .n_rows = pass.n_rows - pass.first_output_row,
       .norm = {.kind = config_.norm_kind,
                .weight = w.vector(Part::kOutputNorm),
                .bias = w.vector(Part::kOutputNormBias),
                .epsilon = config_.norm_epsilon},
       .weight = w.matrix(Part::kHead),
       .bias = w.vector(Part::kHeadBias),
       .n_tokens = config_.n_tokens,
       .soft_cap = config_.logit_cap,
       .blocks = blocks,
       .top_k = scratch.top_k_,
       .top = scratch.top_.data(),
       .log_sum_exp = batch.output == OutputKind::kTop ? scratch.log_sum_exp_.data() : nullptr,
       .logits = batch.output == OutputKind::kLogits ? scratch.logits_.as<float>() : nullptr,
       .logits_stride = static_cast<std::int64_t>(scratch.logits_stride_)});
}

// Steps with finite logits. Whatever else is not finite is an error.
int Model::check_head(const Batch& batch, const Pass& pass, Scratch& scratch) const {
  file_->check_whole();
  int n_done = pass.n_steps;
  for (int i = 0; i < pass.n_outputs(); ++i) {
    if (scratch.top_[static_cast<std::size_t>(i * scratch.top_k_)].token >= 0) continue;
    if (pass.n_steps > 1 && i > 0) {
      n_done = i;
      break;
    }
    const int row = pass.first_output_row + i;
    throw Error(
        ErrorCode::kNumerical,
        file_->path() + ": the logits after token " +
            std::to_string(batch.tokens[static_cast<std::size_t>(row)]) + " at position " +
            std::to_string(scratch.positions_[static_cast<std::size_t>(row)]) + " are not finite" +
            (warnings_.empty() ? "" : "; the file may be damaged (load with check_tensors)"));
  }
  scratch.has_top_ = true;
  scratch.has_log_sum_exp_ = batch.output == OutputKind::kTop;
  scratch.has_logits_ = batch.output == OutputKind::kLogits;
  return n_done;
}

void Model::forward(const Batch& batch, KvCache& cache, Scratch& scratch,
                    const std::atomic<bool>* cancel) const {
  check_batch(batch, cache);
  KvCache* const caches[] = {&cache};
  forward_rows(batch, 1, caches, scratch, cancel);
}

void Model::step(const StepBatch& step, Scratch& scratch, const std::atomic<bool>* cancel) const {
  if (step.caches.size() != step.tokens.size()) {
    throw_invalid("a step of " + std::to_string(step.tokens.size()) + " rows has " +
                  std::to_string(step.caches.size()) + " caches");
  }
  if (device_ != nullptr) {
    throw Error(ErrorCode::kUnsupported,
                file_->path() +
                    ": several sequences in one pass run on the CPU only; load the model with "
                    "n_gpu_layers 0");
  }
  const Batch batch{.tokens = step.tokens, .output = step.output, .top_k = step.top_k};
  std::vector<const KvCache*> seen(step.caches.begin(), step.caches.end());
  std::sort(seen.begin(), seen.end());
  if (std::adjacent_find(seen.begin(), seen.end()) != seen.end()) {
    throw_invalid("two rows of a step have the same cache");
  }
  for (const KvCache* cache : step.caches) check_batch(batch, *cache);
  forward_rows(batch, 1, step.caches, scratch, cancel);
}

int Model::forward_rows(const Batch& batch, int n_steps, std::span<KvCache* const> caches,
                        Scratch& scratch, const std::atomic<bool>* cancel) const {
  const int n_rows = static_cast<int>(batch.tokens.size());
  int n_done = 1;
  try {
    n_done = run_rows(batch, n_steps, caches, scratch, cancel);
    file_->check_whole();  // also after passes without a head
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kResource,
                "not enough memory for a forward pass of " + std::to_string(n_rows) + " rows");
  }
  for (KvCache* cache : caches) {
    cache->advance(caches.size() > 1 ? 1 : n_rows - batch.n_present + n_done - 1);
  }
  return n_done;
}

Model::Pass Model::begin_rows(const Batch& batch, int n_steps, std::span<KvCache* const> caches,
                              Scratch& scratch, const std::atomic<bool>* cancel) const {
  scratch.has_logits_ = scratch.has_top_ = scratch.has_log_sum_exp_ = scratch.has_hidden_ = false;
  const int n_rows = static_cast<int>(batch.tokens.size());
  const bool each_own = caches.size() > 1;
  for (KvCache* cache : caches)
    cache->reserve(each_own ? 1 : n_rows - batch.n_present + n_steps - 1);

  const bool tree = !is_chain(batch.parents);
  const int first_output_row = batch.output == OutputKind::kNone ? n_rows : batch.first_output_row;
  const bool has_output = first_output_row < n_rows;
  const Pass pass{
      .caches = caches,
      .each_own = each_own,
      .cancel = cancel,
      .tree = tree,
      .n_rows = n_rows,
      .n_steps = n_steps,
      .first_slot = caches[0]->length() - batch.n_present,
      .first_layer = batch.layers.first,
      .last_layer = batch.layers.last < 0 ? config_.n_layers : batch.layers.last,
      .first_output_row = first_output_row,
      .wants_head = has_output && batch.output != OutputKind::kHidden,
      .wants_hidden = has_output && (batch.output == OutputKind::kHidden || batch.keep_hidden),
      .embeds_on_device =
          weights_->device_embedding != nullptr && batch.layers.first == 0 && batch.hidden.empty(),
      .hidden_stride = padded(config_.hidden_size),
      .qkv_stride = padded(config_.qkv_size()),
      .attention_stride = padded(config_.q_size()),
      .ffn_stride = padded(config_.intermediate_size),
      .rope_stride = std::int64_t{n_rows + n_steps - 1} * config_.n_rot(),
      .chain = n_steps > 1,
  };
  float* const hidden = rows_of(scratch.hidden_, n_rows, pass.hidden_stride);
  (void)rows_of(scratch.cos_sin_, pass.n_fed(), config_.rope_width());
  if (!pass.embeds_on_device) embed(batch, hidden, pass.hidden_stride);
  fill_rope(batch, pass, scratch);
  return pass;
}

int Model::run_rows(const Batch& batch, int n_steps, std::span<KvCache* const> caches,
                    Scratch& scratch, const std::atomic<bool>* cancel) const {
  const Pass pass = begin_rows(batch, n_steps, caches, scratch, cancel);
  const bool on_cpu = pass.first_layer < first_device_layer_;
  const Rows rows{
      .backend = *backend_,
      .cancel = cancel,
      .parents = pass.tree ? batch.parents.data() : nullptr,
      .hidden = scratch.hidden_.as<float>(),
      .qkv = on_cpu ? rows_of(scratch.qkv_, pass.n_rows, pass.qkv_stride) : nullptr,
      .attention =
          on_cpu ? rows_of(scratch.attention_, pass.n_rows, pass.attention_stride) : nullptr,
      .ffn = on_cpu ? rows_of(scratch.ffn_, pass.n_rows, pass.ffn_stride) : nullptr,
      .cos_sin = scratch.cos_sin_.as<float>(),
  };
  const int last_on_cpu = std::min(pass.last_layer, first_device_layer_);
  for (int layer = pass.first_layer; layer < last_on_cpu; ++layer)
    run_layer(layer, pass, rows, nullptr);

  if (pass.wants_head) prepare_head(batch, pass, scratch);
  if (device_ != nullptr && (pass.last_layer > first_device_layer_ || pass.wants_head)) {
    run_on_device(batch, pass, scratch);
  } else if (pass.wants_head) {
    run_head(batch, pass, rows, batch.head_blocks, scratch);
  }
  return end_rows(batch, pass, scratch);
}

// Results can be read then. Returns the steps that were made.
int Model::end_rows(const Batch& batch, const Pass& pass, Scratch& scratch) const {
  scratch.first_output_row_ = pass.first_output_row;
  if (pass.wants_hidden) {
    scratch.hidden_stride_ = static_cast<std::size_t>(pass.hidden_stride);
    scratch.n_hidden_ = static_cast<std::size_t>(config_.hidden_size);
    scratch.has_hidden_ = true;
  }
  const int n_done = pass.wants_head ? check_head(batch, pass, scratch) : pass.n_steps;
  scratch.n_rows_ = pass.n_rows + n_done - 1;
  return n_done;
}

}  // namespace specdec
