// The one place that reads tokenizer metadata from a file.

#include "base/error.h"
#include "gguf/reader.h"
#include "gguf/vocab_rows.h"
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

// Keys of our own, docs/convert.md: what tokenizer.json and tokenizer.model say and GGUF has no key
// for.
constexpr std::string_view kAddedTokens = "specdec.tokenizer.added_tokens";
constexpr std::string_view kAddedFlags = "specdec.tokenizer.added_token_flags";
constexpr std::string_view kSpacePrefix = "specdec.tokenizer.space_prefix";

void read_added_tokens(const GgufFile& file, VocabData& data) {
  const std::vector<std::uint64_t> ids = file.get_u64_array(kAddedTokens);
  const std::vector<std::uint64_t> flags = file.get_u64_array(kAddedFlags);
  const auto fail = [&](std::string_view key, const std::string& text) {
    return file.make_error(ErrorCode::kModelFormat, "bad_vocab", std::string(key) + ": " + text,
                           key);
  };
  if (ids.size() != flags.size()) {
    throw fail(kAddedFlags, std::to_string(flags.size()) + " flags for " +
                                std::to_string(ids.size()) + " added tokens");
  }
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= data.tokens.size()) {
      throw fail(kAddedTokens, std::to_string(ids[i]) + " is not a token, there are " +
                                   std::to_string(data.tokens.size()));
    }
    if (flags[i] > kAllAddedFlags) {
      throw fail(kAddedFlags, "the flags of token " + std::to_string(ids[i]) + " are " +
                                  std::to_string(flags[i]) + ", at most " +
                                  std::to_string(int{kAllAddedFlags}) + " are known");
    }
    data.added_tokens.push_back({ids[i], static_cast<std::uint8_t>(flags[i])});
  }
}

void read_whitespace(const GgufFile& file, VocabData& data) {
  data.add_space_prefix = read_bool(file, "tokenizer.ggml.add_space_prefix");
  data.remove_extra_whitespaces = file.get_bool("tokenizer.ggml.remove_extra_whitespaces", false);
  data.escape_whitespaces = file.get_bool("specdec.tokenizer.escape_whitespaces", true);
  data.fuse_unknown = file.get_bool("specdec.tokenizer.fuse_unknown", true);
  const std::string_view scheme = file.get_string(kSpacePrefix, "segments");
  if (scheme == "always") {
    data.space_prefix = SpacePrefix::kUnlessSpace;
  } else if (scheme == "first") {
    data.space_prefix = SpacePrefix::kFirst;
  } else if (scheme != "segments") {
    throw file.make_error(ErrorCode::kUnsupported, "tokenizer_space_prefix",
                          std::string(kSpacePrefix) +
                              ": expected segments, always or first, found '" + printable(scheme) +
                              "'",
                          kSpacePrefix);
  }
  // llama.cpp ignores the table in these vocabularies; then texts become other tokens than the ones
  // that the model was trained with.
  constexpr std::string_view kCharsmap = "tokenizer.ggml.precompiled_charsmap";
  const GgufValue* charsmap = file.find(kCharsmap);
  const bool ours = data.model == "llama" || data.model == "gpt2";
  if (ours && charsmap != nullptr && (!charsmap->is_array() || charsmap->count() > 0)) {
    throw file.make_error(ErrorCode::kUnsupported, "tokenizer_charsmap",
                          std::string(kCharsmap) +
                              ": a table that normalises text is not supported; convert a "
                              "tokenizer with identity normalisation",
                          kCharsmap);
  }
}

// Tokens that the embedding has no row for: padding is left out, anything else says that the
// tokenizer is another model's.
void drop_padding(const GgufFile& file, VocabData& data) {
  const std::optional<std::uint64_t> n_rows = embedding_rows(file);
  const std::size_t n_tokens = data.tokens.size();
  if (!n_rows || n_tokens <= *n_rows) return;
  // Vocabulary refuses arrays of another length, by their real lengths.
  if ((data.scores && data.scores->size() != n_tokens) ||
      (data.token_types && data.token_types->size() != n_tokens)) {
    return;
  }
  if (const std::optional<std::uint64_t> token = first_token_beyond(file, *n_rows)) {
    throw file.make_error(
        ErrorCode::kModelFormat, "shape_mismatch",
        "tensor 'token_embd.weight' has " + std::to_string(*n_rows) +
            " rows, but tokenizer.ggml.tokens holds " + std::to_string(n_tokens) +
            " tokens, and not all of those beyond are padding: " + std::to_string(*token) +
            " is '" + printable(data.tokens[*token]) + "'",
        "tokenizer.ggml.tokens", "token_embd.weight");
  }
  if (data.scores) data.scores->resize(*n_rows);
  if (data.token_types) data.token_types->resize(*n_rows);
  data.tokens.resize(*n_rows);
  std::erase_if(data.added_tokens, [&](const auto& token) { return token.id >= *n_rows; });
  data.notes.push_back("extra_tokens: the last " + std::to_string(n_tokens - *n_rows) +
                       " tokens are padding that the embedding has no row for; they are left out");
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
  read_added_tokens(file, data);
  drop_padding(file, data);
  data.add_bos = read_bool(file, "tokenizer.ggml.add_bos_token");
  for (const std::int32_t id : file.get_i32_array("tokenizer.ggml.suppress_tokens")) {
    if (id >= 0 && static_cast<std::size_t>(id) < data.tokens.size()) data.suppressed.push_back(id);
  }
  data.add_eos = read_bool(file, "tokenizer.ggml.add_eos_token");
  read_whitespace(file, data);
  data.chat_template = file.get_string("tokenizer.chat_template", "");
  auto tokenizer = std::make_shared<const Tokenizer>(data);
  file.check_whole();
  return tokenizer;
}

}  // namespace specdec
