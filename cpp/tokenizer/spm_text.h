// A text as a SentencePiece tokenizer looks at it: spaces become U+2581 and one is put in front.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/vocab_data.h"

namespace specdec {

class SpmText {
 public:
  explicit SpmText(const VocabData& data)
      : prefix_(data.add_space_prefix.value_or(true)),
        scheme_(data.space_prefix),
        remove_extra_(data.remove_extra_whitespaces),
        escape_(data.escape_whitespaces) {}

  [[nodiscard]] bool adds_prefix() const noexcept { return prefix_; }
  // Are added tokens looked for in the prepared text, or in the text before?
  [[nodiscard]] bool before_added_tokens() const noexcept {
    return scheme_ == SpacePrefix::kSegments;
  }
  // A space of a prepared text.
  [[nodiscard]] std::string_view mark() const noexcept;

  // `text` is all that stands between two tokens that were cut out; `first`: it begins the prompt.
  // With `origins`, also where in `text` each byte of the result comes from, in ascending order.
  [[nodiscard]] std::string prepare(std::string_view text, bool first,
                                    std::vector<std::uint32_t>* origins = nullptr) const;

  // A token's own text prepared the same way, so that it is found in prepared texts.
  [[nodiscard]] std::string prepare_token(std::string_view text) const;

 private:
  [[nodiscard]] bool wants_prefix(std::string_view text, bool first) const;

  bool prefix_;
  SpacePrefix scheme_;
  bool remove_extra_;
  bool escape_;
};

}  // namespace specdec
