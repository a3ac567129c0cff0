// The checked table of tokens, common to both tokenizer kinds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/token.h"
#include "gguf/name_index.h"
#include "tokenizer/vocab_data.h"

namespace specdec {

// As stored in tokenizer.ggml.token_type.
enum class TokenType : std::uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

enum class VocabularyKind { kBytePair, kSentencePiece };

// An Error about the tokenizer of a file.
[[nodiscard]] Error vocab_error(const VocabData& data, ErrorCode code, std::string reason,
                                std::string_view key, const std::string& text);

class Vocabulary {
 public:
  // Checks and copies. Throws Error(kModelFormat: bad_vocab bad_special_id missing_key limit) or
  // Error(kUnsupported: tokenizer_model).
  explicit Vocabulary(const VocabData& data);
  Vocabulary(const Vocabulary&) = delete;
  Vocabulary& operator=(const Vocabulary&) = delete;

  [[nodiscard]] VocabularyKind kind() const noexcept { return kind_; }
  [[nodiscard]] TokenId size() const noexcept { return static_cast<TokenId>(types_.size()); }

  // The vocabulary's own spelling, e.g. with U+0120 or U+2581 for a space. 0 <= id < size().
  [[nodiscard]] std::string_view text(TokenId id) const noexcept { return texts_.at(id); }
  // The bytes that the token stands for in a text.
  [[nodiscard]] std::string_view bytes(TokenId id) const noexcept { return bytes_.at(id); }
  [[nodiscard]] TokenType type(TokenId id) const noexcept {
    return types_[static_cast<std::size_t>(id)];
  }
  // AddedTokenFlag bits.
  [[nodiscard]] unsigned added_flags(TokenId id) const noexcept {
    return added_flags_.empty() ? 0u : added_flags_[static_cast<std::size_t>(id)];
  }
  // May plain text become this token? Not for control, unknown, byte and empty tokens.
  [[nodiscard]] bool is_plain(TokenId id) const noexcept;
  // Is the text spelt in the byte alphabet (gpt2 only)?
  [[nodiscard]] bool in_byte_alphabet(TokenId id) const noexcept {
    return in_alphabet_[static_cast<std::size_t>(id)];
  }
  [[nodiscard]] std::size_t longest_text() const noexcept { return longest_text_; }

  // The first token of that text.
  [[nodiscard]] std::optional<TokenId> find(std::string_view text) const;
  // The first token of that text if plain text may become it.
  [[nodiscard]] std::optional<TokenId> find_plain(std::string_view text) const;

  [[nodiscard]] std::optional<TokenId> special_id(std::string_view name) const;
  [[nodiscard]] const std::vector<TokenId>& eog_ids() const noexcept { return eog_ids_; }  // sorted
  [[nodiscard]] std::vector<std::string>& warnings() noexcept { return warnings_; }
  [[nodiscard]] const std::vector<std::string>& warnings() const noexcept { return warnings_; }

 private:
  // Strings end to end.
  struct Strings {
    std::string all;
    std::vector<std::uint32_t> ends;

    void push(std::string_view text) {
      all += text;
      ends.push_back(static_cast<std::uint32_t>(all.size()));
    }
    [[nodiscard]] std::string_view at(TokenId id) const noexcept {
      const auto i = static_cast<std::size_t>(id);
      const std::uint32_t begin = i == 0 ? 0 : ends[i - 1];
      return std::string_view(all).substr(begin, ends[i] - begin);
    }
  };

  void load_texts(const VocabData& data);
  void load_types(const VocabData& data);
  void load_special_ids(const VocabData& data);
  void find_end_tokens(const VocabData& data);
  void decode_texts(const VocabData& data);

  VocabularyKind kind_;
  Strings texts_;
  Strings bytes_;
  std::vector<TokenType> types_;
  std::vector<bool> in_alphabet_;
  std::vector<std::uint8_t> added_flags_;  // empty: all 0
  std::size_t longest_text_ = 0;
  NameIndex index_;
  std::vector<std::pair<std::string_view, TokenId>> special_ids_;
  std::vector<TokenId> eog_ids_;
  std::vector<std::string> warnings_;
};

// The character that spells byte `byte` in a gpt2 vocabulary: printable ones themselves, the others
// from U+0100 on.
[[nodiscard]] std::uint32_t byte_alphabet(unsigned char byte) noexcept;

// The byte of "<0x0A>"; nothing for any other text.
[[nodiscard]] std::optional<unsigned char> parse_byte_token(std::string_view text) noexcept;

inline constexpr std::string_view kSpaceMark = "\xe2\x96\x81";  // U+2581, a space in SentencePiece

}  // namespace specdec
