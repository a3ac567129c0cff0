#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <deque>

#include "base/error.h"
#include "base/log.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/text_encoder.h"
#include "tokenizer/utf8.h"
#include "tokenizer/vocabulary.h"

namespace specdec {
namespace {

// Encoding needs up to 40 bytes of memory for each byte of text.
constexpr std::size_t kMaxTextBytes = std::size_t{128} << 20;
constexpr std::size_t kMaxSpecialBytes = std::size_t{4} << 20;

}  // namespace

Tokenizer::Tokenizer(const VocabData& data)
    : model_(data.model),
      chat_template_(data.chat_template),
      suppressed_(data.suppressed),
      vocabulary_(std::make_unique<Vocabulary>(data)) {
  bos_ = vocabulary_->special_id("bos");
  eos_ = vocabulary_->special_id("eos");
  eot_ = vocabulary_->special_id("eot");
  unknown_ = vocabulary_->special_id("unknown");
  padding_ = vocabulary_->special_id("padding");
  if (vocabulary_->kind() == VocabularyKind::kBytePair) {
    encoder_ = make_bpe_encoder(data, *vocabulary_);
    pre_ = data.pre.value_or("default");
    add_bos_ = find_pre_tokenizer(pre_)->add_bos;
  } else {
    encoder_ = make_spm_encoder(data, *vocabulary_);
    add_bos_ = true;
  }
  load_special(data);
}

Tokenizer::~Tokenizer() = default;

void Tokenizer::load_special(const VocabData& data) {
  if (data.add_bos.value_or(false) && !bos_) {
    throw vocab_error(data, ErrorCode::kModelFormat, "bad_special_id",
                      "tokenizer.ggml.bos_token_id",
                      "tokenizer.ggml.add_bos_token is set, but there is no such token");
  }
  if (data.add_eos.value_or(false) && !eos_) {
    vocabulary_->warnings().push_back(
        "no_eos: tokenizer.ggml.add_eos_token is set, but there is no such token; none is added");
  }
  add_bos_ = data.add_bos.value_or(add_bos_ && bos_);

  const SpmText* prepared = encoder_->spm_text();
  if (prepared != nullptr && !prepared->before_added_tokens()) prepared = nullptr;
  std::vector<SpecialMatcher::Pattern> patterns;
  std::vector<SpecialMatcher::Pattern> later;  // looked for in what the first ones leave
  std::deque<std::string> spellings;
  std::size_t n_bytes = 0;
  for (TokenId id = 0; id < vocabulary_->size(); ++id) {
    const TokenType type = vocabulary_->type(id);
    const unsigned flags = vocabulary_->added_flags(id);
    const bool user_defined = type == TokenType::kUserDefined;
    if (!user_defined && type != TokenType::kControl && type != TokenType::kUnknown) continue;
    SpecialMatcher::Pattern pattern{vocabulary_->text(id), id, user_defined};
    if (pattern.text.empty()) continue;
    pattern.left_spaces = (flags & kTakesLeftSpaces) != 0;
    pattern.right_spaces = (flags & kTakesRightSpaces) != 0;
    pattern.single_word = (flags & kSingleWord) != 0;
    if (prepared != nullptr && (flags & (kInPreparedText | kAsSpelt)) == kInPreparedText)
      pattern.text = spellings.emplace_back(prepared->prepare_token(pattern.text));
    n_bytes += pattern.text.size();
    ((flags & (kInPreparedText | kAsSpelt)) != 0 ? later : patterns).push_back(pattern);
  }
  if (n_bytes > kMaxSpecialBytes) {
    throw vocab_error(data, ErrorCode::kModelFormat, "limit", "tokenizer.ggml.tokens",
                      "the special tokens have " + std::to_string(n_bytes) +
                          " bytes together, at most " + std::to_string(kMaxSpecialBytes));
  }
  if (!patterns.empty()) special_ = SpecialMatcher(patterns);
  if (!later.empty()) later_ = SpecialMatcher(later);
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  const ByteRange all{0, text.size()};
  std::span<const ByteRange> control_ranges(&all, 1);
  if (!options.parse_special) control_ranges = {};
  return encode_ranges(text, control_ranges, options);
}

std::vector<TokenId> Tokenizer::encode_chat(std::span<const ChatPiece> pieces,
                                            const EncodeOptions& options) const {
  std::string text;
  std::vector<ByteRange> control_ranges;
  for (const ChatPiece& piece : pieces) {
    const std::size_t begin = text.size();
    text += piece.text;
    if (!piece.parse_special || begin == text.size()) continue;
    if (!control_ranges.empty() && control_ranges.back().end == begin) {
      control_ranges.back().end = text.size();
    } else {
      control_ranges.push_back({begin, text.size()});
    }
  }
  return encode_ranges(text, control_ranges, options);
}

std::vector<TokenId> Tokenizer::encode_ranges(std::string_view text,
                                              std::span<const ByteRange> control_ranges,
                                              const EncodeOptions& options) const {
  if (text.size() >= kMaxTextBytes) {
    throw Error(ErrorCode::kResource, "a text of " + std::to_string(text.size()) +
                                          " bytes is too long to tokenize at once, " +
                                          std::to_string(kMaxTextBytes) + " is the limit");
  }
  const auto require = [](const std::optional<TokenId>& id, const char* name) {
    if (!id) throw_invalid(std::string("add_") + name + ": the vocabulary has no such token");
    return *id;
  };
  std::vector<TokenId> tokens;
  if (options.add_bos.value_or(add_bos_)) tokens.push_back(require(bos_, "bos"));
  std::vector<PromptPart> parts;
  special_.cut(text, control_ranges, parts);
  for (const PromptPart& part : parts) {
    if (part.token >= 0) {
      tokens.push_back(part.token);
    } else {
      encode_between(text, part, control_ranges, tokens);
    }
  }
  if (tokens.size() > 1 && bos_ && tokens[0] == *bos_ && tokens[1] == *bos_ &&
      options.add_bos.value_or(add_bos_)) {
    log_message(LogLevel::kWarning,
                "the prompt spells the beginning-of-sequence token '" +
                    printable(vocabulary_->text(*bos_)) +
                    "', and the file adds another: the model sees two; leave it out of the prompt");
  }
  if (options.add_eos) tokens.push_back(require(eos_, "eos"));
  return tokens;
}

void Tokenizer::encode_between(std::string_view prompt, const PromptPart& part,
                               std::span<const ByteRange> control_ranges,
                               std::vector<TokenId>& tokens) const {
  const SpmText* preparation = encoder_->spm_text();
  const bool prepares_first = preparation != nullptr && preparation->before_added_tokens();
  std::string_view text = prompt.substr(part.begin, part.end - part.begin);
  std::vector<ByteRange> ranges;
  if (later_.has_control()) {
    for (const ByteRange& range : control_ranges) {
      if (range.end <= part.begin || range.begin >= part.end) continue;
      ranges.push_back({std::max(range.begin, part.begin) - part.begin,
                        std::min(range.end, part.end) - part.begin});
    }
  }
  std::string prepared;
  if (prepares_first) {
    std::vector<std::uint32_t> origins;
    prepared = preparation->prepare(text, part.begin == 0, ranges.empty() ? nullptr : &origins);
    text = prepared;
    const auto moved = [&origins](std::size_t position) {
      return static_cast<std::size_t>(std::lower_bound(origins.begin(), origins.end(), position) -
                                      origins.begin());
    };
    for (ByteRange& range : ranges) range = {moved(range.begin), moved(range.end)};
  }
  std::vector<PromptPart> pieces;
  later_.cut(text, ranges, pieces);
  for (const PromptPart& piece : pieces) {
    const std::string_view words = text.substr(piece.begin, piece.end - piece.begin);
    if (piece.token >= 0) {
      tokens.push_back(piece.token);
    } else if (preparation == nullptr || prepares_first) {
      encoder_->encode(words, tokens);
    } else {
      encoder_->encode(preparation->prepare(words, part.begin + piece.begin == 0), tokens);
    }
  }
}

void Tokenizer::check(TokenId token, std::size_t position) const {
  if (token >= 0 && token < vocabulary_->size()) return;
  throw_invalid("token " + std::to_string(token) + " at position " + std::to_string(position) +
                " does not exist, the vocabulary has " + std::to_string(vocabulary_->size()));
}

std::string Tokenizer::decode_bytes(std::span<const TokenId> tokens,
                                    const DecodeOptions& options) const {
  std::string bytes;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    check(tokens[i], i);
    if (options.render_special || !is_hidden(tokens[i])) bytes += vocabulary_->bytes(tokens[i]);
  }
  if (options.strip_space_prefix && adds_space_prefix() && bytes.starts_with(' '))
    bytes.erase(0, 1);
  return bytes;
}

std::string Tokenizer::decode(std::span<const TokenId> tokens, const DecodeOptions& options) const {
  return replace_invalid_utf8(decode_bytes(tokens, options));
}

std::string_view Tokenizer::token_bytes(TokenId token) const {
  check(token, 0);
  return vocabulary_->bytes(token);
}

std::string_view Tokenizer::token_text(TokenId token) const {
  check(token, 0);
  return vocabulary_->text(token);
}

bool Tokenizer::is_hidden(TokenId token) const {
  check(token, 0);
  const TokenType type = vocabulary_->type(token);
  return type == TokenType::kControl || type == TokenType::kUnknown || type == TokenType::kUnused;
}

bool Tokenizer::is_control(TokenId token) const {
  check(token, 0);
  return vocabulary_->type(token) == TokenType::kControl;
}

bool Tokenizer::is_eog(TokenId token) const noexcept {
  const std::vector<TokenId>& ids = vocabulary_->eog_ids();
  return std::binary_search(ids.begin(), ids.end(), token);
}

TokenId Tokenizer::n_tokens() const noexcept { return vocabulary_->size(); }

std::optional<TokenId> Tokenizer::find_token(std::string_view text) const {
  return vocabulary_->find(text);
}

const std::vector<TokenId>& Tokenizer::eog_ids() const noexcept { return vocabulary_->eog_ids(); }

bool Tokenizer::adds_space_prefix() const noexcept {
  const SpmText* text = encoder_->spm_text();
  return text != nullptr && text->adds_prefix();
}

const std::vector<std::string>& Tokenizer::warnings() const noexcept {
  return vocabulary_->warnings();
}

}  // namespace specdec
