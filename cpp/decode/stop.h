// Where a generation ends: end-of-sequence tokens and stop strings, the same for plain and
// speculative decoding because tokens pass one by one.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/token.h"

namespace specdec {

// Text of a token, as bytes: a character may be spread over several tokens.
class TokenPieces {
 public:
  virtual ~TokenPieces() = default;
  [[nodiscard]] virtual std::string piece(TokenId token) const = 0;
};

// Follows the text of a generation. A stop string ends it where it first becomes complete, counted
// in bytes, so the result does not depend on how tokens divide the text. Kept is every token that
// begins before the stop string; the text is cut exactly before it. End-of-sequence tokens are not
// kept.
class StopState {
 public:
  // pieces may be null when there are no stop strings; then there is no text.
  // eog: tokens that end the generation. Throws Error(kInvalidArgument) for an empty stop string.
  StopState(std::span<const TokenId> eog, std::span<const std::string> stop,
            const TokenPieces* pieces);

  enum class Cause { kNone, kEndOfSequence, kStopString };

  // Adds a token; true when the generation ends with it. Not to be called after that.
  bool push(TokenId token);

  [[nodiscard]] Cause cause() const { return cause_; }
  [[nodiscard]] TokenId eog_token() const { return eog_token_; }               // of kEndOfSequence
  [[nodiscard]] const std::string& stop_string() const { return *stop_hit_; }  // of kStopString

  // Tokens that are part of the result so far.
  [[nodiscard]] std::size_t n_kept() const { return ends_.size(); }
  // How many of them can be shown: no later token can cut into their text. After the end: all.
  [[nodiscard]] std::size_t n_releasable() const;
  // Text of tokens [from, to).
  [[nodiscard]] std::string_view text(std::size_t from, std::size_t to) const;
  // Drops tokens from n on (the caller stopped).
  void drop_after(std::size_t n);

 private:
  [[nodiscard]] std::size_t held_back_bytes() const;
  [[nodiscard]] std::size_t begin_of(std::size_t i) const { return i == 0 ? 0 : ends_[i - 1]; }

  std::vector<TokenId> eog_;
  std::vector<std::string> stop_;
  const TokenPieces* pieces_;
  std::string text_;
  std::vector<std::size_t> ends_;  // end of each kept token in text_
  Cause cause_ = Cause::kNone;
  TokenId eog_token_ = -1;
  const std::string* stop_hit_ = nullptr;
};

}  // namespace specdec
