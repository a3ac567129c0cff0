// The one place that reads tokenizer metadata from a file.

#include "gguf/reader.h"
#include "tokenizer/tokenizer.h"

namespace specdec {
namespace {

const GgufValue* find_array(const GgufFile& file, std::string_view key,
                            std::initializer_list<GgufType> element_types, const char* expected) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return nullptr;
  bool known = false;
  for (const GgufType type : element_types) known = known || value->element_type() == type;
  if (!value->is_array() || !known) {
    throw file.make_error(ErrorCode::kModelFormat, "wrong_type",
                          "expected " + std::string(expected) + ", found " + value->type_name(),
                          key);
  }
  return value;
}

std::optional<std::vector<float>> read_scores(const GgufFile& file) {
  constexpr std::string_view kKey = "tokenizer.ggml.scores";
  const GgufValue* value =
      find_array(file, kKey, {GgufType::kF32, GgufType::kI32}, "an array of f32");
  if (value == nullptr) return std::nullopt;
  if (value->element_type() == GgufType::kF32) return value->as_f32_array();
  const std::vector<std::int32_t> integers = value->as_i32_array();
  return std::vector<float>(integers.begin(), integers.end());
}

std::optional<bool> read_bool(const GgufFile& file, std::string_view key) {
  if (file.find(key) == nullptr) return std::nullopt;
  return file.get_bool(key, false);
}

}  // namespace

std::shared_ptr<const Tokenizer> Tokenizer::from_gguf(const GgufFile& file) {
  VocabData data;
  data.path = file.path();
  data.model = file.require_string("tokenizer.ggml.model");
  if (file.find("tokenizer.ggml.pre") != nullptr) {
    data.pre = std::string(file.require_string("tokenizer.ggml.pre"));
  }
  if (const GgufValue* value =
          find_array(file, "tokenizer.ggml.tokens", {GgufType::kString}, "an array of strings")) {
    data.tokens = value->as_string_array();
  }
  data.scores = read_scores(file);
  if (const GgufValue* value =
          find_array(file, "tokenizer.ggml.token_type", {GgufType::kI32}, "an array of i32")) {
    data.token_types = value->as_i32_array();
  }
  if (const GgufValue* value =
          find_array(file, "tokenizer.ggml.merges", {GgufType::kString}, "an array of strings")) {
    data.merges = value->as_string_array();
  }
  for (const std::string_view name : kSpecialIdNames) {
    const std::string key = "tokenizer.ggml." + std::string(name) + "_token_id";
    if (file.find(key) != nullptr) data.special_ids.push_back({name, file.get_i64(key, 0)});
  }
  data.add_bos = read_bool(file, "tokenizer.ggml.add_bos_token");
  data.add_eos = read_bool(file, "tokenizer.ggml.add_eos_token");
  data.add_space_prefix = read_bool(file, "tokenizer.ggml.add_space_prefix");
  data.chat_template = file.get_string("tokenizer.chat_template", "");
  return std::make_shared<const Tokenizer>(data);
}

}  // namespace specdec
