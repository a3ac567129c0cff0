// Byte-level BPE: a word's bytes, spelt in the byte alphabet, are merged in the order of the file's
// merges.

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "tokenizer/merge_table.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/text_encoder.h"
#include "tokenizer/utf8.h"

namespace specdec {
namespace {

constexpr std::string_view kMergesKey = "tokenizer.ggml.merges";
constexpr std::size_t kMaxMerges = std::size_t{1} << 22;
constexpr std::uint32_t kPollWords = 1 << 14;  // some milliseconds

struct MergeTexts {
  std::string_view left;
  std::string_view right;
};

MergeTexts parse_merge(const VocabData& data, std::size_t index, std::size_t longest_token) {
  const std::string_view merge = (*data.merges)[index];
  const auto bad = [&](const std::string& why) {
    return vocab_error(data, ErrorCode::kModelFormat, "bad_merge", kMergesKey,
                       "merge " + std::to_string(index) + " '" + printable(merge) + "' " + why);
  };
  const std::size_t space = merge.find(' ', 1);
  if (space == std::string_view::npos) throw bad("has no space between its two parts");
  const MergeTexts texts{merge.substr(0, space), merge.substr(space + 1)};
  if (merge[0] == ' ' || texts.right.empty()) throw bad("has an empty part");
  if (texts.right.find(' ') != std::string_view::npos) throw bad("has more than two parts");
  if (merge.size() - 1 > longest_token) {
    throw bad("makes more bytes than the longest token, " + std::to_string(longest_token));
  }
  return texts;
}

// Symbols 0 to n_tokens - 1 are tokens; above them are texts that only occur inside merges.
class SymbolTable {
 public:
  explicit SymbolTable(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}

  void reserve(std::size_t n_extra) { index_.reset(n_extra); }

  Symbol intern(std::string_view text) {
    if (const auto id = vocabulary_.find_plain(text)) return static_cast<Symbol>(*id);
    const auto text_of = [this](std::uint32_t i) { return std::string_view(extra_[i]); };
    extra_.emplace_back(text);
    const auto position = static_cast<std::uint32_t>(extra_.size() - 1);
    const auto earlier = index_.insert(position, text_of);
    if (earlier) extra_.pop_back();
    return static_cast<Symbol>(vocabulary_.size()) + earlier.value_or(position);
  }

 private:
  const Vocabulary& vocabulary_;
  std::deque<std::string> extra_;
  NameIndex index_;
};

class BpeEncoder final : public TextEncoder {
 public:
  BpeEncoder(const VocabData& data, Vocabulary& vocabulary, const PreTokenizer& pre)
      : vocabulary_(vocabulary),
        n_tokens_(static_cast<Symbol>(vocabulary.size())),
        rule_(pre.rule) {
    // Only a token that was made for it: some files name the end-of-text token here.
    unknown_ = vocabulary.special_id("unknown");
    if (unknown_ && vocabulary.type(*unknown_) != TokenType::kUnknown) unknown_.reset();
    load_merges(data, vocabulary.warnings());
    if (pre.ignore_merges) index_words();
  }

  void encode(std::string_view text, const std::function<void()>& poll,
              std::vector<TokenId>& out) const override {
    SplitScratch split;
    MergeTable::Scratch merge;
    std::vector<std::uint32_t> word_ends;
    std::vector<PlacedSymbol> symbols;
    if (poll) {
      merge.poll = &poll;
      poll();
    }
    split_words(rule_, text, split, word_ends);
    std::uint32_t begin = 0;
    std::uint32_t n_words = 0;
    for (const std::uint32_t end : word_ends) {
      if (++n_words % kPollWords == 0 && poll) poll();
      encode_word(text.substr(begin, end - begin), symbols, merge, out);
      begin = end;
    }
  }

 private:
  void load_merges(const VocabData& data, std::vector<std::string>& warnings);
  void index_words();
  void encode_word(std::string_view word, std::vector<PlacedSymbol>& symbols,
                   MergeTable::Scratch& scratch, std::vector<TokenId>& out) const;

  const Vocabulary& vocabulary_;
  Symbol n_tokens_;
  std::optional<TokenId> unknown_;
  SplitRule rule_;
  MergeTable merges_;
  std::array<Symbol, 256> byte_symbols_{};
  std::vector<TokenId> words_;  // with ignore_merges: tokens by the bytes they stand for
  NameIndex word_index_;
};

void BpeEncoder::load_merges(const VocabData& data, std::vector<std::string>& warnings) {
  if (!data.merges) {
    throw vocab_error(data, ErrorCode::kModelFormat, "missing_key", kMergesKey,
                      "a byte-level BPE vocabulary needs its merges");
  }
  if (data.merges->size() > kMaxMerges) {
    throw vocab_error(data, ErrorCode::kModelFormat, "limit", kMergesKey,
                      std::to_string(data.merges->size()) + " merges, at most " +
                          std::to_string(kMaxMerges) + " are allowed");
  }
  SymbolTable table(vocabulary_);
  std::string joined;
  std::size_t n_extra = 256;
  for (std::size_t i = 0; i < data.merges->size(); ++i) {
    const MergeTexts texts = parse_merge(data, i, vocabulary_.longest_text());
    joined.assign(texts.left).append(texts.right);
    n_extra += !vocabulary_.find_plain(texts.left) + !vocabulary_.find_plain(texts.right) +
               !vocabulary_.find_plain(joined);
  }
  table.reserve(n_extra);

  std::size_t n_missing = 0;
  for (unsigned byte = 0; byte < 256; ++byte) {
    std::string text;
    append_utf8(text, byte_alphabet(static_cast<unsigned char>(byte)));
    byte_symbols_[byte] = table.intern(text);
    // Others cannot be missed: many vocabularies are without them.
    n_missing +=
        byte_symbols_[byte] >= n_tokens_ && is_byte_of_text(static_cast<unsigned char>(byte));
  }
  std::vector<MergeRule> rules;
  rules.reserve(data.merges->size());
  for (std::size_t i = 0; i < data.merges->size(); ++i) {
    const MergeTexts texts = parse_merge(data, i, vocabulary_.longest_text());
    joined.assign(texts.left).append(texts.right);
    rules.push_back({table.intern(texts.left), table.intern(texts.right),
                     static_cast<std::uint32_t>(i), table.intern(joined)});
  }
  merges_ = MergeTable(std::move(rules));
  if (n_missing > 0) {
    warnings.push_back("missing_bytes: " + std::to_string(n_missing) +
                       " bytes of text have no token; in a prompt they " +
                       (unknown_ ? "become the unknown token" : "are left out"));
  }
}

void BpeEncoder::index_words() {
  for (TokenId id = 0; id < vocabulary_.size(); ++id) {
    if (vocabulary_.is_plain(id) && vocabulary_.in_byte_alphabet(id)) words_.push_back(id);
  }
  word_index_.reset(words_.size());
  const auto bytes_of = [this](std::uint32_t i) { return vocabulary_.bytes(words_[i]); };
  for (std::uint32_t i = 0; i < words_.size(); ++i) word_index_.insert(i, bytes_of);
}

void BpeEncoder::encode_word(std::string_view word, std::vector<PlacedSymbol>& symbols,
                             MergeTable::Scratch& scratch, std::vector<TokenId>& out) const {
  if (!words_.empty() && word.size() <= vocabulary_.longest_text()) {
    const auto bytes_of = [this](std::uint32_t i) { return vocabulary_.bytes(words_[i]); };
    if (const auto position = word_index_.find(word, bytes_of)) {
      out.push_back(words_[*position]);
      return;
    }
  }
  symbols.clear();
  for (std::uint32_t i = 0; i < word.size(); ++i) {
    const Symbol symbol = byte_symbols_[static_cast<unsigned char>(word[i])];
    // A byte without a token is left out before merging, as the original tokenizers do.
    if (symbol < n_tokens_ || unknown_) symbols.push_back({symbol, i});
  }
  merges_.merge(symbols, scratch);
  for (std::size_t i = 0; i < symbols.size(); ++i) {
    if (symbols[i].symbol < n_tokens_) {
      out.push_back(static_cast<TokenId>(symbols[i].symbol));
      continue;
    }
    // Merged to a text that is no token: its bytes one by one.
    const std::size_t end = i + 1 < symbols.size() ? symbols[i + 1].begin : word.size();
    for (std::size_t at = symbols[i].begin; at < end; ++at) {
      const Symbol symbol = byte_symbols_[static_cast<unsigned char>(word[at])];
      if (symbol < n_tokens_) {
        out.push_back(static_cast<TokenId>(symbol));
      } else if (unknown_) {
        out.push_back(*unknown_);
      }
    }
  }
}

}  // namespace

std::unique_ptr<const TextEncoder> make_bpe_encoder(const VocabData& data, Vocabulary& vocabulary) {
  if (!data.pre) {
    vocabulary.warnings().push_back(
        "missing_pre: the file does not name its pre-tokenizer (tokenizer.ggml.pre); 'default' is "
        "used, which may split words differently than the model was trained with");
  }
  const PreTokenizer* pre = find_pre_tokenizer(data.pre.value_or("default"));
  if (pre == nullptr) {
    throw vocab_error(data, ErrorCode::kUnsupported, "tokenizer_pre", "tokenizer.ggml.pre",
                      "the pre-tokenizer '" + printable(*data.pre) +
                          "' is not supported; supported are " + known_pre_tokenizers());
  }
  return std::make_unique<BpeEncoder>(data, vocabulary, *pre);
}

}  // namespace specdec
