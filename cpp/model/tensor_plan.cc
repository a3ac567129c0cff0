#include "model/tensor_plan.h"

#include <unordered_set>

namespace specdec {

namespace {

constexpr std::uint64_t kMaxVocabSize = std::uint64_t{1} << 22;

std::string shape_text(const std::vector<std::uint64_t>& shape) {
  std::string text = "[";
  for (const std::uint64_t size : shape)
    text.append(text.size() > 1 ? ", " : "").append(std::to_string(size));
  return text + "]";
}

bool same_shape(const std::vector<std::uint64_t>& expected, std::vector<std::uint64_t> found) {
  while (found.size() > expected.size() && found.back() == 1) found.pop_back();
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

class Plan {
 public:
  void add(std::string name, std::vector<std::uint64_t> shape,
           Presence presence = Presence::kRequired) {
    if (presence == Presence::kNever) return;
    tensors.push_back({std::move(name), std::move(shape), presence == Presence::kRequired});
  }
  std::vector<PlannedTensor> tensors;
};

void plan_attention(const GgufFile& file, const ArchSpec& spec, const ModelConfig& c, int layer,
                    Plan& plan) {
  const auto hidden = static_cast<std::uint64_t>(c.hidden_size);
  const auto q = static_cast<std::uint64_t>(c.q_size());
  const auto kv = static_cast<std::uint64_t>(c.kv_size());
  if (spec.fused_qkv_only || file.find_tensor(block_name(layer, "attn_qkv.weight")) != nullptr) {
    plan.add(block_name(layer, "attn_qkv.weight"), {hidden, q + 2 * kv});
    plan.add(block_name(layer, "attn_qkv.bias"), {q + 2 * kv}, spec.qkv_bias);
  } else {
    plan.add(block_name(layer, "attn_q.weight"), {hidden, q});
    plan.add(block_name(layer, "attn_k.weight"), {hidden, kv});
    plan.add(block_name(layer, "attn_v.weight"), {hidden, kv});
    plan.add(block_name(layer, "attn_q.bias"), {q}, spec.qkv_bias);
    plan.add(block_name(layer, "attn_k.bias"), {kv}, spec.qkv_bias);
    plan.add(block_name(layer, "attn_v.bias"), {kv}, spec.qkv_bias);
  }
  plan.add(block_name(layer, "attn_output.weight"), {q, hidden});
  plan.add(block_name(layer, "attn_output.bias"), {hidden}, spec.attention_out_bias);
}

Plan make_plan(const GgufFile& file, const ArchSpec& spec, const ModelConfig& c) {
  const auto hidden = static_cast<std::uint64_t>(c.hidden_size);
  const auto ffn = static_cast<std::uint64_t>(c.intermediate_size);
  const auto vocab = static_cast<std::uint64_t>(c.vocab_size);
  const Presence norm_bias =
      spec.norm_kind == Norm::Kind::kLayer ? Presence::kRequired : Presence::kNever;
  Plan plan;
  plan.add("token_embd.weight", {hidden, vocab});
  plan.add("output_norm.weight", {hidden});
  plan.add("output_norm.bias", {hidden}, norm_bias);
  plan.add("output.weight", {hidden, vocab}, Presence::kOptional);
  plan.add("output.bias", {vocab}, spec.head_bias);
  plan.add("rope_freqs.weight", {static_cast<std::uint64_t>(c.rope.n_rot / 2)}, spec.rope_divisors);
  for (int layer = 0; layer < c.n_layers; ++layer) {
    plan.add(block_name(layer, "attn_norm.weight"), {hidden});
    plan.add(block_name(layer, "attn_norm.bias"), {hidden}, norm_bias);
    plan_attention(file, spec, c, layer, plan);
    plan.add(block_name(layer, "ffn_norm.weight"), {hidden});
    plan.add(block_name(layer, "ffn_norm.bias"), {hidden}, norm_bias);
    if (spec.gated_ffn) plan.add(block_name(layer, "ffn_gate.weight"), {hidden, ffn});
    plan.add(block_name(layer, "ffn_up.weight"), {hidden, ffn});
    plan.add(block_name(layer, "ffn_up.bias"), {ffn}, spec.ffn_bias);
    plan.add(block_name(layer, "ffn_down.weight"), {ffn, hidden});
    plan.add(block_name(layer, "ffn_down.bias"), {hidden}, spec.ffn_bias);
  }
  return plan;
}

}  // namespace

std::string block_name(int layer, const char* part) {
  return "blk." + std::to_string(layer) + "." + part;
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

void check_tensor_plan(const GgufFile& file, const ArchSpec& spec, const ModelConfig& config) {
  const Plan plan = make_plan(file, spec, config);
  std::unordered_set<std::string_view> known;
  for (const PlannedTensor& planned : plan.tensors) {
    known.insert(planned.name);
    const TensorInfo* tensor = file.find_tensor(planned.name);
    if (tensor == nullptr) {
      if (planned.required) fail_missing(file, planned.name, planned.shape);
      continue;
    }
    if (!same_shape(planned.shape, tensor->shape))
      fail_shape(file, *tensor, shape_text(planned.shape));
  }
  for (const TensorInfo& tensor : file.tensors()) {
    if (known.count(tensor.name) > 0) continue;
    throw file.make_error(ErrorCode::kModelFormat, "unexpected_tensor",
                          "tensor '" + printable(tensor.name) + "' does not belong in a '" +
                              config.architecture + "' model with " +
                              std::to_string(config.n_layers) + " layers",
                          {}, tensor.name, tensor.offset);
  }
}

}  // namespace specdec
