#include "tokenizer/vocabulary.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "tokenizer/utf8.h"

namespace specdec {
namespace {

constexpr std::size_t kMaxTokens = std::size_t{1} << 20;
constexpr std::size_t kMaxTokenBytes = std::size_t{64} << 10;
constexpr std::size_t kMaxVocabularyBytes = std::size_t{1} << 30;

constexpr std::string_view kDeepSeekEnd =  // with full-width bars
    "<\xef\xbd\x9c"
    "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>";

// Texts that end a generation in the chat formats of the known model families.
constexpr std::string_view kEndTexts[] = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",           // Gemma 4
    "<|tool_response>",  // Gemma 4
    "[e~[",              // MiniMax
    kDeepSeekEnd,
};
// Fill-in-the-middle padding and file separators: nothing after them belongs to the answer.
constexpr std::string_view kFimEndTexts[] = {
    "<|fim_pad|>",   "<fim-pad>",  "<fim_pad>", "<PAD>",      "[PAD]",        "<|fim_repo|>",
    "<|repo_name|>", "<fim-repo>", "<REPO>",    "<reponame>", "<|file_sep|>",
};
constexpr std::string_view kEndIdNames[] = {"eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"};
constexpr std::string_view kTurnEndTexts[] = {
    "<|eot_id|>", "<|im_end|>",         "<|end|>",       "<end_of_turn>",   "<EOT>",      "_<EOT>",
    "[EOT]",      "<end_of_utterance>", "<|endoftext|>", "<|end_of_text|>", kDeepSeekEnd,
};

// byte_alphabet() backwards.
struct AlphabetBytes {
  std::array<std::int16_t, 0x144> byte_of;

  AlphabetBytes() {
    byte_of.fill(-1);
    for (int byte = 0; byte < 256; ++byte) {
      byte_of[byte_alphabet(static_cast<unsigned char>(byte))] = static_cast<std::int16_t>(byte);
    }
  }
};

// Appends the bytes that `text` spells; characters outside the alphabet stand for themselves.
// Returns whether there were none.
bool decode_byte_alphabet(std::string_view text, std::string& out) {
  static const AlphabetBytes alphabet;
  bool all = true;
  for (std::size_t i = 0; i < text.size();) {
    const auto [code_point, n_bytes] = decode_utf8(text, i);
    const int byte = code_point < alphabet.byte_of.size() ? alphabet.byte_of[code_point] : -1;
    if (byte >= 0) {
      out += static_cast<char>(byte);
    } else {
      out += text.substr(i, n_bytes);
      all = false;
    }
    i += n_bytes;
  }
  return all;
}

std::string unescape_spaces(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    if (text.substr(i, kSpaceMark.size()) == kSpaceMark) {
      out += ' ';
      i += kSpaceMark.size();
    } else {
      out += text[i++];
    }
  }
  return out;
}

// Do the merges make `text`? Then it is ordinary text that happens to look like an end token, as
// the HTML tag "</s>" in Qwen's vocabularies.
bool is_merged(const VocabData& data, std::string_view text) {
  if (!data.merges) return false;
  return std::any_of(data.merges->begin(), data.merges->end(), [&](std::string_view merge) {
    const std::size_t space = merge.find(' ', 1);
    return merge.size() == text.size() + 1 && space != std::string_view::npos &&
           merge.substr(0, space) == text.substr(0, space) &&
           merge.substr(space + 1) == text.substr(space);
  });
}

void check_count(const VocabData& data, std::string_view key, std::size_t n, const char* what) {
  if (n == data.tokens.size()) return;
  throw vocab_error(data, ErrorCode::kModelFormat, "bad_vocab", key,
                    std::to_string(n) + " " + what + " for " + std::to_string(data.tokens.size()) +
                        " tokens; expected one for each");
}

VocabularyKind kind_of(const VocabData& data) {
  if (data.model == "gpt2") return VocabularyKind::kBytePair;
  if (data.model == "llama") return VocabularyKind::kSentencePiece;
  throw vocab_error(data, ErrorCode::kUnsupported, "tokenizer_model", "tokenizer.ggml.model",
                    "the tokenizer '" + printable(data.model) +
                        "' is not supported; supported are gpt2 (byte-level BPE) and llama "
                        "(SentencePiece)");
}

}  // namespace

Error vocab_error(const VocabData& data, ErrorCode code, std::string reason, std::string_view key,
                  const std::string& text) {
  ErrorDetail detail;
  detail.reason = std::move(reason);
  detail.path = data.path;
  detail.key = std::string(key);
  std::string message = data.path.empty() ? std::string() : data.path + ": ";
  if (!key.empty()) message += detail.key + ": ";
  return Error(code, message + text, std::move(detail));
}

std::uint32_t byte_alphabet(unsigned char byte) noexcept {
  if ((byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae) return byte;
  // The 68 others in order: 0x00-0x20, 0x7f-0xa0, 0xad.
  if (byte <= 0x20) return 0x100u + byte;
  return byte == 0xad ? 0x143u : 0x121u + (byte - 0x7fu);
}

std::optional<unsigned char> parse_byte_token(std::string_view text) noexcept {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return std::nullopt;
  unsigned value = 0;
  for (const char c : text.substr(3, 2)) {
    unsigned digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<unsigned>(c - '0');
    } else if (c >= 'A' && c <= 'F') {
      digit = static_cast<unsigned>(c - 'A') + 10;
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<unsigned>(c - 'a') + 10;
    } else {
      return std::nullopt;
    }
    value = value * 16 + digit;
  }
  return static_cast<unsigned char>(value);
}

Vocabulary::Vocabulary(const VocabData& data) : kind_(kind_of(data)), warnings_(data.notes) {
  load_texts(data);
  load_types(data);
  if (!data.added_tokens.empty()) {
    added_flags_.resize(types_.size());
    for (const VocabData::AddedToken& token : data.added_tokens)
      added_flags_[static_cast<std::size_t>(token.id)] = token.flags;
  }
  load_special_ids(data);
  find_end_tokens(data);
  decode_texts(data);
}

void Vocabulary::load_texts(const VocabData& data) {
  constexpr std::string_view kKey = "tokenizer.ggml.tokens";
  if (data.tokens.empty()) {
    throw vocab_error(data, ErrorCode::kModelFormat, "missing_key", kKey, "there are no tokens");
  }
  if (data.tokens.size() > kMaxTokens) {
    throw vocab_error(data, ErrorCode::kModelFormat, "limit", kKey,
                      std::to_string(data.tokens.size()) + " tokens, at most " +
                          std::to_string(kMaxTokens) + " are allowed");
  }
  std::size_t total = 0;
  for (std::size_t i = 0; i < data.tokens.size(); ++i) {
    const std::size_t n_bytes = data.tokens[i].size();
    total += n_bytes;
    if (n_bytes > kMaxTokenBytes || total > kMaxVocabularyBytes) {
      throw vocab_error(data, ErrorCode::kModelFormat, "limit", kKey,
                        "token " + std::to_string(i) + " of " + std::to_string(n_bytes) +
                            " bytes: a token may have " + std::to_string(kMaxTokenBytes) +
                            " and all together " + std::to_string(kMaxVocabularyBytes));
    }
    longest_text_ = std::max(longest_text_, n_bytes);
  }
  texts_.all.reserve(total);
  texts_.ends.reserve(data.tokens.size());
  for (const std::string_view text : data.tokens) texts_.push(text);

  const auto text_of = [this](std::uint32_t i) { return text(static_cast<TokenId>(i)); };
  index_.reset(data.tokens.size());
  std::size_t n_duplicates = 0;
  std::size_t n_empty = 0;
  std::string first_duplicate;
  for (std::uint32_t i = 0; i < data.tokens.size(); ++i) {
    if (data.tokens[i].empty()) {
      ++n_empty;
      continue;
    }
    const auto earlier = index_.insert(i, text_of);
    if (earlier && n_duplicates++ == 0) {
      first_duplicate = printable(data.tokens[i]);
      first_duplicate += " has ids " + std::to_string(*earlier) + " and " + std::to_string(i);
    }
  }
  if (n_duplicates > 0) {
    warnings_.push_back("duplicate_tokens: " + std::to_string(n_duplicates) +
                        " token texts are repeated, the first: " + first_duplicate +
                        "; text becomes the lower id");
  }
  if (n_empty > 0) {
    warnings_.push_back("empty_tokens: " + std::to_string(n_empty) + " tokens have no text");
  }
}

void Vocabulary::load_types(const VocabData& data) {
  constexpr std::string_view kKey = "tokenizer.ggml.token_type";
  if (data.scores) check_count(data, "tokenizer.ggml.scores", data.scores->size(), "scores");
  const std::size_t n_tokens = data.tokens.size();
  types_.assign(n_tokens, TokenType::kNormal);
  if (!data.token_types) return;
  check_count(data, kKey, data.token_types->size(), "types");
  for (std::size_t i = 0; i < n_tokens; ++i) {
    const std::int32_t type = (*data.token_types)[i];
    if (type < static_cast<std::int32_t>(TokenType::kNormal) ||
        type > static_cast<std::int32_t>(TokenType::kByte)) {
      throw vocab_error(data, ErrorCode::kModelFormat, "bad_vocab", kKey,
                        "token " + std::to_string(i) + " has type " + std::to_string(type) +
                            (type == 0 ? " (undefined)" : "") + ", types are 1 to 6");
    }
    types_[i] = static_cast<TokenType>(type);
  }
}

void Vocabulary::load_special_ids(const VocabData& data) {
  for (const auto& [name, id] : data.special_ids) {
    // Files in use say "none" with -1 or 4294967295, or name a padding token that the checkpoint's
    // tokenizer has and its vocabulary has not.
    if (id < 0 || id >= size()) {
      warnings_.push_back("special_id: tokenizer.ggml." + std::string(name) + "_token_id is " +
                          std::to_string(id) + ", there are " + std::to_string(size()) +
                          " tokens; the file counts as one without this key");
      continue;
    }
    const auto stored = std::find(std::begin(kSpecialIdNames), std::end(kSpecialIdNames), name);
    if (stored != std::end(kSpecialIdNames)) {
      special_ids_.emplace_back(*stored, static_cast<TokenId>(id));
    }
  }
  // The format's defaults, only where the token there can be meant.
  const auto add_default = [&](std::string_view name, TokenId id, TokenType type) {
    if (special_id(name) || id >= size()) return;
    if (data.token_types && this->type(id) != type) return;
    special_ids_.emplace_back(name, id);
  };
  if (kind_ == VocabularyKind::kSentencePiece) {
    add_default("bos", 1, TokenType::kControl);
    add_default("eos", 2, TokenType::kControl);
    add_default("unknown", 0, TokenType::kUnknown);
  } else if (data.token_types) {
    add_default("bos", 11, TokenType::kControl);
    add_default("eos", 11, TokenType::kControl);
  }
}

void Vocabulary::find_end_tokens(const VocabData& data) {
  for (const std::string_view end_text : kEndTexts) {
    const auto id = find(end_text);
    if (!id) continue;
    TokenType& token_type = types_[static_cast<std::size_t>(*id)];
    if (token_type == TokenType::kNormal && is_merged(data, end_text)) continue;
    eog_ids_.push_back(*id);
    if (token_type != TokenType::kControl && token_type != TokenType::kUserDefined) {
      warnings_.push_back("end_token_type: '" + printable(end_text) +
                          "' is not marked as a control token; it is treated as one");
    }
    token_type = TokenType::kControl;
  }
  for (const std::string_view end_text : kFimEndTexts) {
    const auto id = find(end_text);
    if (id && !(type(*id) == TokenType::kNormal && is_merged(data, end_text))) {
      eog_ids_.push_back(*id);
    }
  }
  for (const std::string_view name : kEndIdNames) {
    if (const auto id = special_id(name)) eog_ids_.push_back(*id);
  }
  if (!special_id("eot")) {
    for (const std::string_view end_text : kTurnEndTexts) {
      const auto id = find(end_text);
      if (!id) continue;
      special_ids_.emplace_back("eot", *id);
      break;
    }
  }
  // Where a format has its own end of a tool call or an answer, <|end|> only ends one message of
  // it.
  const bool calls = find("<|call|>") || find("<|calls|>");
  if (calls && (find("<|return|>") || find("<|flush|>"))) {
    if (const auto end = find("<|end|>")) std::erase(eog_ids_, *end);
  }
  std::sort(eog_ids_.begin(), eog_ids_.end());
  eog_ids_.erase(std::unique(eog_ids_.begin(), eog_ids_.end()), eog_ids_.end());
}

void Vocabulary::decode_texts(const VocabData& data) {
  bytes_.all.reserve(texts_.all.size());
  bytes_.ends.reserve(types_.size());
  in_alphabet_.assign(types_.size(), false);
  for (TokenId id = 0; id < size(); ++id) {
    const TokenType token_type = type(id);
    if (token_type == TokenType::kByte) {
      const auto byte = parse_byte_token(text(id));
      if (!byte) {
        throw vocab_error(data, ErrorCode::kModelFormat, "bad_vocab", "tokenizer.ggml.tokens",
                          "byte token " + std::to_string(id) + " is '" + printable(text(id)) +
                              "', expected a text such as <0x0A>");
      }
      const char c = static_cast<char>(*byte);
      bytes_.push(std::string_view(&c, 1));
    } else if (token_type == TokenType::kControl || token_type == TokenType::kUnknown ||
               token_type == TokenType::kUserDefined) {
      bytes_.push(text(id));
    } else if (kind_ == VocabularyKind::kSentencePiece) {
      bytes_.push(unescape_spaces(text(id)));
    } else {
      std::string bytes;
      in_alphabet_[static_cast<std::size_t>(id)] = decode_byte_alphabet(text(id), bytes);
      bytes_.push(bytes);
    }
  }
}

bool Vocabulary::is_plain(TokenId id) const noexcept {
  const TokenType token_type = type(id);
  return token_type != TokenType::kControl && token_type != TokenType::kUnknown &&
         token_type != TokenType::kByte && !text(id).empty() &&
         (added_flags(id) & kNeverMerged) == 0;
}

std::optional<TokenId> Vocabulary::find(std::string_view wanted) const {
  if (wanted.empty()) return std::nullopt;
  const auto position =
      index_.find(wanted, [this](std::uint32_t i) { return text(static_cast<TokenId>(i)); });
  if (!position) return std::nullopt;
  return static_cast<TokenId>(*position);
}

std::optional<TokenId> Vocabulary::find_plain(std::string_view wanted) const {
  const auto id = find(wanted);
  return id && is_plain(*id) ? id : std::nullopt;
}

std::optional<TokenId> Vocabulary::special_id(std::string_view name) const {
  for (const auto& [known, id] : special_ids_) {
    if (known == name) return id;
  }
  return std::nullopt;
}

}  // namespace specdec
