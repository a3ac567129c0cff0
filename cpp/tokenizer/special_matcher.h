// Finds the texts of added tokens (control and user-defined ones) inside a prompt.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/token.h"

namespace specdec {

// Bytes [begin, end) of a text.
struct ByteRange {
  std::size_t begin;
  std::size_t end;
};

// A part of a prompt: one added token, or text in which there is none.
struct PromptPart {
  std::size_t begin;
  std::size_t end;
  TokenId token;  // -1: text
};

// The token that begins first is cut out, of those that begin there the longest, as `tokenizers`
// and sentencepiece do. An Aho-Corasick automaton that reads the text backwards finds the longest
// token at each beginning, so the time is linear in the text whatever the number of tokens.
class SpecialMatcher {
 public:
  struct Pattern {
    std::string_view text;  // not empty
    TokenId token;
    bool everywhere;           // user-defined: also where control tokens are not looked for
    bool left_spaces = false;  // takes the white space before it (lstrip)
    bool right_spaces = false;
    bool single_word = false;  // only where no letter, digit or "_" stands beside it
  };

  SpecialMatcher() = default;
  explicit SpecialMatcher(std::span<const Pattern> patterns);

  [[nodiscard]] bool empty() const noexcept { return nodes_.empty(); }
  // Are there tokens that control_ranges matter to?
  [[nodiscard]] bool has_control() const noexcept { return has_control_; }

  // Appends the parts of `text` in order. Tokens that are not `everywhere` are found only where
  // they lie inside one of `control_ranges` (sorted, disjoint).
  void cut(std::string_view text, std::span<const ByteRange> control_ranges,
           std::vector<PromptPart>& out) const;

 private:
  // A node stands for the end of patterns, read from there to the left.
  struct Node {
    std::uint32_t first_child = 0;  // 0: none (the root is nobody's child)
    std::uint32_t next_sibling = 0;
    std::uint32_t suffix = 0;      // the longest proper suffix that is a node
    std::uint32_t next_match = 0;  // the longest proper suffix that is a pattern; 0: none
    TokenId token = -1;            // of the pattern that is this node
    std::uint32_t depth = 0;       // bytes from the root
    unsigned char byte = 0;
    bool everywhere = false;
    bool left_spaces = false;
    bool right_spaces = false;
    bool single_word = false;
  };
  struct Match {
    std::size_t begin;
    std::uint32_t node;
  };

  [[nodiscard]] std::uint32_t child(std::uint32_t node, unsigned char byte) const noexcept;
  [[nodiscard]] bool is_allowed(const Match& match,
                                std::span<const ByteRange> control_ranges) const noexcept;
  [[nodiscard]] std::vector<Match> find_matches(std::string_view text,
                                                std::span<const ByteRange> control_ranges) const;

  std::vector<Node> nodes_;
  std::array<std::uint32_t, 256> root_children_{};
  bool has_control_ = false;
  bool has_everywhere_ = false;
};

}  // namespace specdec
