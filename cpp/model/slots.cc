#include "model/slots.h"

#include <algorithm>
#include <unordered_set>

#include "model/arch/arch.h"

namespace specdec {

namespace {

constexpr std::uint64_t kMaxVocabSize = std::uint64_t{1} << 22;

std::string shape_text(const std::vector<std::uint64_t>& shape) {
  std::string text = "[";
  for (const std::uint64_t size : shape)
    text.append(text.size() > 1 ? ", " : "").append(std::to_string(size));
  return text + "]";
}

bool same_shape(std::vector<std::uint64_t> expected, std::vector<std::uint64_t> found) {
  for (auto* shape : {&expected, &found}) {
    while (shape->size() > 1 && shape->back() == 1) shape->pop_back();
  }
  return found == expected;
}

[[noreturn]] void fail_missing(const GgufFile& file, const std::string& name,
                               const std::vector<std::uint64_t>& shape) {
  throw file.make_error(ErrorCode::kModelFormat, "missing_tensor",
                        "tensor '" + name + "' " + shape_text(shape) + " is missing", {}, name);
}

[[noreturn]] void fail_shape(const GgufFile& file, const TensorInfo& tensor,
                             const std::string& expected) {
  throw file.make_error(ErrorCode::kModelFormat, "shape_mismatch",
                        "tensor '" + printable(tensor.name) + "' should have the shape " +
                            expected + " by the metadata, found " + shape_text(tensor.shape),
                        {}, tensor.name, tensor.offset);
}

[[noreturn]] void fail_type(const GgufFile& file, const Slot& slot, const TensorInfo& tensor) {
  throw file.make_error(ErrorCode::kUnsupported, "tensor_type",
                        "tensor '" + printable(tensor.name) + "' has type " +
                            dtype_traits(tensor.dtype).name + ", expected " +
                            (slot.kind == SlotKind::kIds ? dtype_traits(kIdType).name : "weights"),
                        {}, tensor.name, tensor.offset);
}

}  // namespace

void SlotTable::add(Part part, const std::string& name, std::vector<std::uint64_t> shape,
                    Presence presence, SlotKind kind) {
  if (presence == Presence::kNever) return;
  slots_.push_back({.part = part,
                    .layer = layer_,
                    .name = prefix() + name,
                    .shape = std::move(shape),
                    .presence = presence,
                    .kind = kind});
}

std::string SlotTable::prefix() const {
  return layer_ < 0 ? "" : "blk." + std::to_string(config_.first_block + layer_) + ".";
}

void SlotTable::linear(Part part, const char* name, std::int64_t n_in, std::int64_t n_out,
                       Presence bias, Presence weight) {
  const auto in = static_cast<std::uint64_t>(n_in);
  const auto out = static_cast<std::uint64_t>(n_out);
  add(part, std::string(name) + ".weight", {in, out}, weight, SlotKind::kMatrix);
  if (bias != Presence::kNever) vector(bias_of(part), std::string(name) + ".bias", n_out, bias);
}

void SlotTable::norm(Part part, const char* name) {
  vector(part, std::string(name) + ".weight", config_.hidden_size);
  if (spec_.norm_kind == Norm::Kind::kLayer)
    vector(bias_of(part), std::string(name) + ".bias", config_.hidden_size);
}

void SlotTable::vector(Part part, const std::string& name, std::int64_t n, Presence presence) {
  add(part, name, {static_cast<std::uint64_t>(n)}, presence, SlotKind::kVector);
}

void SlotTable::ids(Part part, const std::string& name, std::int64_t n) {
  add(part, name, {static_cast<std::uint64_t>(n)}, Presence::kOptional, SlotKind::kIds);
}

void SlotTable::table(Part part, const std::string& name, std::int64_t n_in, std::int64_t n_out) {
  add(part, name, {static_cast<std::uint64_t>(n_in), static_cast<std::uint64_t>(n_out)},
      Presence::kRequired, SlotKind::kVector);
}

void SlotTable::qkv(Presence bias, bool fused_only) {
  const ModelConfig& c = config_;
  const bool gates = c.layers[static_cast<std::size_t>(layer_)].gates_attention;
  const std::int64_t q_rows = (gates ? 2 : 1) * std::int64_t{c.q_size()};
  const std::string fused = prefix() + "attn_qkv.weight";
  if (fused_only || file_.find_tensor(fused) != nullptr) {
    linear(Part::kQkv, "attn_qkv", c.hidden_size, q_rows + 2 * std::int64_t{c.kv_size()}, bias);
    return;
  }
  linear(Part::kQ, "attn_q", c.hidden_size, q_rows, bias);
  linear(Part::kK, "attn_k", c.hidden_size, c.kv_size(), bias);
  linear(Part::kV, "attn_v", c.hidden_size, c.kv_size(), bias);
}

void SlotTable::gated_ffn() {
  linear(Part::kGate, "ffn_gate", config_.hidden_size, config_.intermediate_size);
  linear(Part::kUp, "ffn_up", config_.hidden_size, config_.intermediate_size);
  linear(Part::kDown, "ffn_down", config_.intermediate_size, config_.hidden_size);
}

void SlotTable::half_of_rows(bool second) {
  Slot& slot = slots_.back();
  slot.n_rows = slot.shape[1] / 2;
  slot.first_row = second ? slot.n_rows : 0;
}

void SlotTable::fused_gated_ffn() {
  for (const Part part : {Part::kGate, Part::kUp}) {
    linear(part, "ffn_up", config_.hidden_size, 2 * std::int64_t{config_.intermediate_size});
    half_of_rows(part == Part::kUp);
  }
  linear(Part::kDown, "ffn_down", config_.intermediate_size, config_.hidden_size);
}

void SlotTable::plain_ffn(Presence bias) {
  linear(Part::kUp, "ffn_up", config_.hidden_size, config_.intermediate_size, bias);
  linear(Part::kDown, "ffn_down", config_.intermediate_size, config_.hidden_size, bias);
}

void SlotTable::experts(Presence bias) {
  const auto hidden = static_cast<std::uint64_t>(config_.hidden_size);
  const auto size = static_cast<std::uint64_t>(config_.expert_size);
  const auto n = static_cast<std::uint64_t>(config_.n_experts);
  linear(Part::kRouter, "ffn_gate_inp", config_.hidden_size, config_.n_experts, bias);
  const auto stack = [&](Part part, const std::string& name, std::uint64_t n_in,
                         std::uint64_t n_out) {
    add(part, name + ".weight", {n_in, n_out, n}, Presence::kRequired, SlotKind::kExperts);
    if (bias != Presence::kNever)
      add(bias_of(part), name + ".bias", {n_out, n}, bias, SlotKind::kVector);
  };
  const std::string fused = prefix() + "ffn_gate_up_exps.weight";
  if (bias == Presence::kNever && file_.find_tensor(fused) != nullptr) {
    for (const Part part : {Part::kGateExperts, Part::kUpExperts}) {
      stack(part, "ffn_gate_up_exps", hidden, 2 * size);
      half_of_rows(part == Part::kUpExperts);
    }
  } else {
    stack(Part::kGateExperts, "ffn_gate_exps", hidden, size);
    stack(Part::kUpExperts, "ffn_up_exps", hidden, size);
  }
  stack(Part::kDownExperts, "ffn_down_exps", size, hidden);
}

void SlotTable::shared_expert(Presence router) {
  const auto hidden = static_cast<std::uint64_t>(config_.hidden_size);
  const auto size = static_cast<std::uint64_t>(config_.shared_expert_size);
  linear(Part::kSharedRouter, "ffn_gate_inp_shexp", config_.hidden_size, 1, Presence::kNever,
         router);
  const auto stack = [&](Part part, const char* name, std::uint64_t n_in, std::uint64_t n_out) {
    add(part, name, {n_in, n_out, 1}, Presence::kRequired, SlotKind::kExperts);
  };
  stack(Part::kSharedGate, "ffn_gate_shexp.weight", hidden, size);
  stack(Part::kSharedUp, "ffn_up_shexp.weight", hidden, size);
  stack(Part::kSharedDown, "ffn_down_shexp.weight", size, hidden);
}

void SlotTable::pre_norm_layer(Presence qkv_bias, Presence out_bias) {
  norm(Part::kAttentionNorm, "attn_norm");
  qkv(qkv_bias);
  linear(Part::kAttentionOut, "attn_output", config_.q_size(), config_.hidden_size, out_bias);
  norm(Part::kFfnNorm, "ffn_norm");
  config_.n_experts > 0 ? experts() : gated_ffn();
}

void SlotTable::join() {
  const std::int64_t n = config_.hidden_size;
  norm(Part::kEmbeddingNorm, "nextn.enorm");
  norm(Part::kFeatureNorm, "nextn.hnorm");
  linear(Part::kJoin, "nextn.eh_proj", 2 * n, n);
}

namespace {

// What a block that predicts further tokens has beside its layer: its own, or the file's where it
// is alone there; the rest is the target's.
void add_next_slots(const GgufFile& file, const ModelConfig& config, SlotTable& model) {
  const std::string block = "blk." + std::to_string(config.first_block) + ".nextn.";
  const auto own = [&](const char* name, const char* other) {
    const std::string at = block + name;
    return file.find_tensor(at + ".weight") != nullptr ? at : std::string(other);
  };
  if (config.draft_head.own_embedding) {
    model.linear(Part::kEmbedding, own("embed_tokens", "token_embd").c_str(), config.hidden_size,
                 config.vocab_size);
  }
  model.norm(Part::kOutputNorm, own("shared_head_norm", "output_norm").c_str());
  if (config.draft_head.own_output) {
    model.linear(Part::kHead, own("shared_head_head", "output").c_str(), config.hidden_size,
                 config.vocab_size);
  }
  SlotTable layer(file, model.spec(), config, 0, model.slots());
  layer.join();
  model.spec().layer_slots(layer);
}

}  // namespace

std::vector<Slot> model_slots(const GgufFile& file, const ArchSpec& spec,
                              const ModelConfig& config) {
  std::vector<Slot> slots;
  SlotTable model(file, spec, config, -1, slots);
  if (config.draft_head.next_tokens) {
    add_next_slots(file, config, model);
    return slots;
  }
  const bool is_head = static_cast<bool>(config.draft_head);
  model.linear(Part::kEmbedding, "token_embd", config.hidden_size, config.vocab_size,
               Presence::kNever, is_head ? Presence::kOptional : Presence::kRequired);
  model.norm(Part::kOutputNorm, "output_norm");
  const bool own_rows = is_head && !config.draft_head.target_ids.empty();
  model.linear(Part::kHead, "output", config.hidden_size,
               own_rows ? config.n_head_tokens : config.vocab_size, spec.head_bias,
               Presence::kOptional);
  if (spec.model_slots != nullptr) spec.model_slots(model);
  model.vector(Part::kRopeDivisors, "rope_freqs.weight", config.n_rot() / 2, spec.rope_divisors);
  if (config.ropes[0].scaling == RopeScaling::kLongRope) {
    model.vector(Part::kShortRopeDivisors, "rope_factors_short.weight", config.n_rot() / 2);
    model.vector(Part::kLongRopeDivisors, "rope_factors_long.weight", config.n_rot() / 2);
  }
  for (int layer = 0; layer < config.n_layers; ++layer) {
    SlotTable table(file, spec, config, layer, slots);
    spec.layer_slots(table);
  }
  return slots;
}

bool is_unused(std::string_view name, const ModelConfig& config) {
  if (config.draft_head.next_tokens) {
    return std::none_of(config.slots.begin(), config.slots.end(),
                        [&](const Slot& slot) { return slot.name == name; });
  }
  for (int block = config.n_layers; block < config.n_blocks; ++block) {
    if (name.starts_with("blk." + std::to_string(block) + ".")) return true;
  }
  return false;
}

namespace {

// Of what nothing reads, whether it has a right to be there: in the block that is read all of it
// counts, and beside a block that is alone there are others like it and what models share with it.
bool may_be_unused(const GgufFile& file, std::string_view name, const ModelConfig& config) {
  if (!config.draft_head.next_tokens) return is_unused(name, config);
  const auto is_of = [&](int block) {
    return name.starts_with("blk." + std::to_string(block) + ".");
  };
  if (is_of(config.first_block)) return false;
  if (!has_only_next_tokens(file)) return true;
  for (int block = config.first_block + 1; block < config.n_blocks; ++block)
    if (is_of(block)) return true;
  return !name.starts_with("blk.");
}

}  // namespace

void check_slots(const GgufFile& file, const std::vector<Slot>& slots, const ModelConfig& config) {
  std::unordered_set<std::string_view> known;
  for (const Slot& slot : slots) {
    known.insert(slot.name);
    const TensorInfo* tensor = file.find_tensor(slot.name);
    if (tensor == nullptr) {
      if (slot.presence == Presence::kRequired) fail_missing(file, slot.name, slot.shape);
      continue;
    }
    if (!same_shape(slot.shape, tensor->shape)) fail_shape(file, *tensor, shape_text(slot.shape));
    if ((slot.kind == SlotKind::kIds) != (tensor->dtype == kIdType)) fail_type(file, slot, *tensor);
  }
  for (const TensorInfo& tensor : file.tensors()) {
    if (known.count(tensor.name) > 0 || may_be_unused(file, tensor.name, config)) continue;
    throw file.make_error(ErrorCode::kModelFormat, "unexpected_tensor",
                          "tensor '" + printable(tensor.name) + "' does not belong in a '" +
                              config.architecture + "' model with " +
                              std::to_string(config.n_layers) + " layers",
                          {}, tensor.name, tensor.offset);
  }
}

int read_vocab_size(const GgufFile& file, int hidden_size) {
  const TensorInfo* embedding = file.find_tensor("token_embd.weight");
  const auto hidden = static_cast<std::uint64_t>(hidden_size);
  if (embedding == nullptr) fail_missing(file, "token_embd.weight", {hidden});
  if (embedding->shape.size() != 2 || embedding->shape[0] != hidden ||
      embedding->shape[1] > kMaxVocabSize) {
    fail_shape(file, *embedding, "hidden size " + std::to_string(hidden) + " by vocabulary size");
  }
  return static_cast<int>(embedding->shape[1]);
}

}  // namespace specdec
