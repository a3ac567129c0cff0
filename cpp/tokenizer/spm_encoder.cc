// SentencePiece-style BPE: in the prepared text (spm_text.h) the adjacent pair whose joined text is
// the token with the highest score is merged, again and again; characters that are no token become
// byte tokens.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "tokenizer/merge_table.h"
#include "tokenizer/text_encoder.h"
#include "tokenizer/utf8.h"

namespace specdec {
namespace {

constexpr std::string_view kScoresKey = "tokenizer.ggml.scores";
constexpr std::string_view kTokensKey = "tokenizer.ggml.tokens";
// Bound on the work of finding all ways to split all tokens in two: the sum of squared lengths.
constexpr std::uint64_t kMaxSplitWork = std::uint64_t{1} << 30;

// Code point -> symbol, in pages that exist only where they are used.
class CharSymbols {
 public:
  [[nodiscard]] Symbol find(std::uint32_t code_point) const noexcept {
    if (code_point >> 8 >= kPages || !pages_[code_point >> 8]) return kNoSymbol;
    return (*pages_[code_point >> 8])[code_point & 0xff];
  }

  void set(std::uint32_t code_point, Symbol symbol) {
    auto& page = pages_[code_point >> 8];
    if (!page) {
      page = std::make_unique<Page>();
      page->fill(kNoSymbol);
    }
    (*page)[code_point & 0xff] = symbol;
  }

 private:
  static constexpr std::uint32_t kPages = 0x1100;
  using Page = std::array<Symbol, 256>;
  std::array<std::unique_ptr<Page>, kPages> pages_;
};

class SpmEncoder final : public TextEncoder {
 public:
  SpmEncoder(const VocabData& data, Vocabulary& vocabulary)
      : vocabulary_(vocabulary),
        n_tokens_(static_cast<Symbol>(vocabulary.size())),
        unknown_(vocabulary.special_id("unknown")),
        fuse_unknown_(data.fuse_unknown),
        text_(data) {
    load_bytes(data, vocabulary.warnings());
    load_pairs(data, vocabulary.warnings());
  }

  void encode(std::string_view text, const std::function<void()>& poll,
              std::vector<TokenId>& out) const override;
  [[nodiscard]] const SpmText* spm_text() const noexcept override { return &text_; }

 private:
  void load_bytes(const VocabData& data, std::vector<std::string>& warnings);
  void load_pairs(const VocabData& data, std::vector<std::string>& warnings);
  [[nodiscard]] Symbol part_symbol(std::string_view part, std::size_t n_chars, Symbol& n_symbols);

  const Vocabulary& vocabulary_;
  Symbol n_tokens_;
  std::optional<TokenId> unknown_;
  bool fuse_unknown_;
  SpmText text_;
  std::array<TokenId, 256> byte_tokens_{};  // -1: none
  CharSymbols char_symbols_;
  MergeTable merges_;
};

void SpmEncoder::load_bytes(const VocabData& data, std::vector<std::string>& warnings) {
  byte_tokens_.fill(-1);
  for (TokenId id = vocabulary_.size() - 1; id >= 0; --id) {
    if (vocabulary_.type(id) != TokenType::kByte) continue;
    byte_tokens_[static_cast<unsigned char>(vocabulary_.bytes(id)[0])] = id;
  }
  std::size_t n_missing = 0, n_missed = 0;
  for (unsigned byte = 0; byte < 256; ++byte) {
    if (byte_tokens_[byte] >= 0) continue;
    constexpr std::string_view kDigits = "0123456789ABCDEF";
    const std::string text = std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + ">";
    if (const auto id = vocabulary_.find(text)) {
      byte_tokens_[byte] = *id;
    } else {
      ++n_missing;
      n_missed += is_byte_of_text(static_cast<unsigned char>(byte));
    }
  }
  if (n_missing == 0) return;
  if (!unknown_) {
    throw vocab_error(data, ErrorCode::kModelFormat, "bad_vocab", kTokensKey,
                      std::to_string(n_missing) +
                          " of the 256 byte tokens are missing and there is no unknown token");
  }
  if (n_missed == 0) return;
  warnings.push_back("missing_bytes: " + std::to_string(n_missed) +
                     " bytes of text have no token; in a prompt they become the unknown token");
}

// The symbol of one half of a token; single characters that are no token get one of their own.
Symbol SpmEncoder::part_symbol(std::string_view part, std::size_t n_chars, Symbol& n_symbols) {
  if (n_chars == 1) {
    const std::uint32_t code_point = decode_utf8(part, 0).code_point;
    Symbol symbol = char_symbols_.find(code_point);
    if (symbol == kNoSymbol) {
      symbol = n_symbols++;
      char_symbols_.set(code_point, symbol);
    }
    return symbol;
  }
  const auto id = vocabulary_.find_plain(part);
  return id ? static_cast<Symbol>(*id) : kNoSymbol;
}

void SpmEncoder::load_pairs(const VocabData& data, std::vector<std::string>& warnings) {
  if (!data.scores) {
    throw vocab_error(data, ErrorCode::kModelFormat, "missing_key", kScoresKey,
                      "a SentencePiece vocabulary needs its scores");
  }
  const auto n_tokens = static_cast<std::size_t>(vocabulary_.size());
  const std::vector<float>& scores = *data.scores;  // one for each token: Vocabulary saw to it
  std::uint64_t work = 0;
  for (std::size_t i = 0; i < n_tokens; ++i) {
    const std::uint64_t length = vocabulary_.text(static_cast<TokenId>(i)).size();
    work += length * length;
    if (!std::isfinite(scores[i])) {
      throw vocab_error(data, ErrorCode::kModelFormat, "bad_vocab", kScoresKey,
                        "the score of token " + std::to_string(i) + " is not finite");
    }
  }
  if (work > kMaxSplitWork) {
    throw vocab_error(data, ErrorCode::kModelFormat, "limit", kTokensKey,
                      "the tokens are too long together: the sum of their squared lengths is " +
                          std::to_string(work) + ", at most " + std::to_string(kMaxSplitWork));
  }
  std::vector<float> ranked = scores;  // from the highest; the index is the rank
  std::sort(ranked.begin(), ranked.end(), std::greater<>());
  ranked.erase(std::unique(ranked.begin(), ranked.end()), ranked.end());

  // Where the characters of every token begin; tokens that are not UTF-8 are never chosen.
  std::size_t n_not_utf8 = 0;
  std::vector<std::vector<std::uint32_t>> char_begins(n_tokens);
  for (std::size_t i = 0; i < n_tokens; ++i) {
    const auto id = static_cast<TokenId>(i);
    const std::string_view text = vocabulary_.text(id);
    if (vocabulary_.find_plain(text) != id) continue;  // also a repeated text
    for (std::size_t at = 0; at < text.size();) {
      const auto [code_point, n_bytes] = decode_utf8(text, at);
      if (code_point == kInvalidByte) {
        char_begins[i].clear();
        ++n_not_utf8;
        break;
      }
      if (n_bytes == text.size()) char_symbols_.set(code_point, static_cast<Symbol>(i));
      char_begins[i].push_back(static_cast<std::uint32_t>(at));
      at += n_bytes;
    }
  }
  if (n_not_utf8 > 0) {
    warnings.push_back("token_not_utf8: " + std::to_string(n_not_utf8) +
                       " tokens are not UTF-8; no text becomes them");
  }
  std::vector<MergeRule> rules;
  Symbol n_symbols = n_tokens_;
  for (std::size_t i = 0; i < n_tokens; ++i) {
    const std::string_view text = vocabulary_.text(static_cast<TokenId>(i));
    const std::vector<std::uint32_t>& begins = char_begins[i];
    const auto rank = static_cast<std::uint32_t>(
        std::lower_bound(ranked.begin(), ranked.end(), scores[i], std::greater<>()) -
        ranked.begin());
    for (std::size_t cut = 1; cut < begins.size(); ++cut) {
      const Symbol left = part_symbol(text.substr(0, begins[cut]), cut, n_symbols);
      if (left == kNoSymbol) continue;
      const Symbol right = part_symbol(text.substr(begins[cut]), begins.size() - cut, n_symbols);
      if (right == kNoSymbol) continue;
      rules.push_back({left, right, rank, static_cast<Symbol>(i)});
    }
  }
  merges_ = MergeTable(std::move(rules));
}

void SpmEncoder::encode(std::string_view text, const std::function<void()>& poll,
                        std::vector<TokenId>& out) const {
  std::vector<PlacedSymbol> symbols;
  symbols.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const auto [code_point, n_bytes] = decode_utf8(text, i);
    symbols.push_back({char_symbols_.find(code_point), static_cast<std::uint32_t>(i)});
    i += n_bytes;
  }
  MergeTable::Scratch scratch;
  if (poll) scratch.poll = &poll;
  merges_.merge(symbols, scratch);
  bool after_unknown = false;
  for (std::size_t i = 0; i < symbols.size(); ++i) {
    if (symbols[i].symbol < n_tokens_) {
      out.push_back(static_cast<TokenId>(symbols[i].symbol));
      after_unknown = false;
      continue;
    }
    const std::size_t end = i + 1 < symbols.size() ? symbols[i + 1].begin : text.size();
    const std::string_view bytes = text.substr(symbols[i].begin, end - symbols[i].begin);
    const auto token_of = [this](char c) { return byte_tokens_[static_cast<unsigned char>(c)]; };
    if (std::all_of(bytes.begin(), bytes.end(), [&](char c) { return token_of(c) >= 0; })) {
      for (const char c : bytes) out.push_back(token_of(c));
      after_unknown = false;
      continue;
    }
    if (!after_unknown || !fuse_unknown_) out.push_back(*unknown_);
    after_unknown = true;
  }
}

}  // namespace

std::unique_ptr<const TextEncoder> make_spm_encoder(const VocabData& data, Vocabulary& vocabulary) {
  return std::make_unique<SpmEncoder>(data, vocabulary);
}

}  // namespace specdec
