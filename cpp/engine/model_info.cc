#include "engine/model_info.h"

#include <algorithm>
#include <limits>
#include <map>
#include <string_view>

#include "gguf/reader.h"

namespace specdec {
namespace {

// Odd values are the model layer's business; here they count as absent.
std::int64_t integer_or_zero(const GgufFile& file, const std::string& key) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return 0;
  try {
    const std::uint64_t number = value->as_u64();
    constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    return number <= kMax ? static_cast<std::int64_t>(number) : 0;
  } catch (const Error&) {
    return 0;
  }
}

std::string string_or_empty(const GgufFile& file, std::string_view key) {
  const GgufValue* value = file.find(key);
  if (value == nullptr || value->type() != GgufType::kString) return {};
  return std::string(value->as_string());
}

std::string tokenizer_name(const GgufFile& file) {
  const std::string model = string_or_empty(file, "tokenizer.ggml.model");
  const std::string pre = string_or_empty(file, "tokenizer.ggml.pre");
  if (model == "llama") return "llama (SentencePiece)";
  if (model == "gpt2")
    return "gpt2 (BPE" + (pre.empty() ? std::string() : ", " + printable(pre)) + ")";
  return printable(model);
}

void describe_tensors(const GgufFile& file, ModelInfo& info) {
  std::map<std::string, std::pair<std::uint64_t, int>> types;  // name -> bytes, tensors
  for (const TensorInfo& tensor : file.tensors()) {
    info.n_params += tensor.n_elements;
    info.weight_bytes += tensor.n_bytes;
    auto& [n_bytes, n_tensors] = types[dtype_traits(tensor.dtype).name];
    n_bytes += tensor.n_bytes;
    ++n_tensors;
  }
  std::vector<std::pair<std::string, std::pair<std::uint64_t, int>>> sorted(types.begin(),
                                                                            types.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second.first > b.second.first; });
  for (const auto& [name, counts] : sorted) {
    info.tensor_types.emplace_back(name, counts.second);
    // Norms and biases are F32 in every file: not worth a word beside a quantised type.
    if (name == "F32" && sorted.size() > 1 && counts.first * 50 < info.weight_bytes) continue;
    info.quantisation += (info.quantisation.empty() ? "" : " + ") + name;
  }
}

}  // namespace

ModelInfo describe_model(const GgufFile& file) {
  ModelInfo info;
  info.path = file.path();
  info.architecture = printable(string_or_empty(file, "general.architecture"), 64);
  info.name = printable(string_or_empty(file, "general.name"));
  info.size_bytes = file.total_size();
  info.n_parts = file.n_parts();
  describe_tensors(file, info);

  const std::string prefix = info.architecture + ".";
  info.context_length = integer_or_zero(file, prefix + "context_length");
  info.n_layers = integer_or_zero(file, prefix + "block_count");
  info.hidden_size = integer_or_zero(file, prefix + "embedding_length");
  info.ffn_size = integer_or_zero(file, prefix + "feed_forward_length");
  if (info.ffn_size == 0)  // only experts have one
    info.ffn_size = integer_or_zero(file, prefix + "expert_feed_forward_length");
  info.n_heads = integer_or_zero(file, prefix + "attention.head_count");
  info.n_kv_heads = integer_or_zero(file, prefix + "attention.head_count_kv");
  if (info.n_kv_heads == 0) info.n_kv_heads = info.n_heads;
  info.head_dim = integer_or_zero(file, prefix + "attention.key_length");
  if (info.head_dim == 0 && info.n_heads > 0) info.head_dim = info.hidden_size / info.n_heads;

  if (const GgufValue* tokens = file.find("tokenizer.ggml.tokens"); tokens && tokens->is_array()) {
    info.vocab_size = static_cast<std::int64_t>(tokens->count());
  }
  const TensorInfo* head = file.find_tensor("output.weight");
  const TensorInfo* embedding = file.find_tensor("token_embd.weight");
  info.tied_head = head == nullptr && embedding != nullptr;
  if (const TensorInfo* rows = head != nullptr ? head : embedding;
      rows && rows->shape.size() == 2) {
    info.n_vocab_rows = static_cast<std::int64_t>(rows->shape[1]);
  }
  info.bytes_per_step = info.weight_bytes;
  if (!info.tied_head && embedding != nullptr) info.bytes_per_step -= embedding->n_bytes;
  info.tokenizer = tokenizer_name(file);
  info.n_experts = integer_or_zero(file, prefix + "expert_count");
  info.n_experts_used =
      std::min(integer_or_zero(file, prefix + "expert_used_count"), info.n_experts);
  if (info.n_experts > 0) {
    std::uint64_t unread = 0;
    for (const TensorInfo& tensor : file.tensors()) {
      if (!std::string_view(tensor.name).ends_with("_exps.weight")) continue;
      unread += tensor.n_bytes / static_cast<std::uint64_t>(info.n_experts) *
                static_cast<std::uint64_t>(info.n_experts - info.n_experts_used);
    }
    info.bytes_per_step -= std::min(unread, info.bytes_per_step);
  }
  file.check_whole();
  return info;
}

}  // namespace specdec
