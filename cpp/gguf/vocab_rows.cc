#include "gguf/vocab_rows.h"

#include <algorithm>
#include <string>

namespace specdec {
namespace {

constexpr std::int32_t kUnused = 5;  // tokenizer.ggml.token_type

}  // namespace

bool is_padding_name(std::string_view text) {
  std::string word;
  for (const char c : text) {
    const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (lower >= 'a' && lower <= 'z') {
      word += lower;
    } else if (std::string_view("<>[]|_- 0123456789").find(c) == std::string_view::npos) {
      return false;
    }
  }
  return word.empty() ? text.empty()
                      : word == "pad" || word == "padding" || word == "padtoken" ||
                            word == "unused" || word == "dummy";
}

std::optional<std::uint64_t> embedding_rows(const GgufFile& file) {
  const TensorInfo* embedding = file.find_tensor("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) return std::nullopt;
  return embedding->shape[1];
}

std::optional<std::uint64_t> first_token_beyond(const GgufFile& file, std::uint64_t n_rows) {
  const GgufValue* tokens = file.find("tokenizer.ggml.tokens");
  if (tokens == nullptr || !tokens->is_array() || tokens->element_type() != GgufType::kString)
    return std::nullopt;
  std::vector<std::int32_t> types;
  const GgufValue* stored = file.find("tokenizer.ggml.token_type");
  if (stored != nullptr && stored->is_array() && stored->element_type() == GgufType::kI32)
    types = stored->as_i32_array();
  std::int64_t padding = -1;
  const GgufValue* padding_id = file.find("tokenizer.ggml.padding_token_id");
  if (padding_id != nullptr && !padding_id->is_array())
    padding = file.get_i64("tokenizer.ggml.padding_token_id", -1);
  const std::vector<std::string_view> texts = tokens->as_string_array();
  for (std::uint64_t id = n_rows; id < texts.size(); ++id) {
    const bool unused = id < types.size() && types[id] == kUnused;
    if (unused || static_cast<std::int64_t>(id) == padding || is_padding_name(texts[id])) continue;
    return id;
  }
  return std::nullopt;
}

}  // namespace specdec
