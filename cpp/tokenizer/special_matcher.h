// Finds the texts of special tokens inside a prompt.
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

// A part of a prompt: one special token, or text in which there is none.
struct PromptPart {
  std::size_t begin;
  std::size_t end;
  TokenId token;  // -1: text
};

// Longer token texts are cut out before shorter ones, wherever they stand, and equally long ones
// from left to right, as llama.cpp does. An Aho-Corasick automaton finds the candidates, so the
// time is linear in the text whatever the number of special tokens.
class SpecialMatcher {
 public:
  struct Pattern {
    std::string_view text;  // not empty
    TokenId token;
    bool everywhere;  // user-defined: also where control tokens are not looked for
  };

  SpecialMatcher() = default;
  explicit SpecialMatcher(std::span<const Pattern> patterns);

  // Appends the parts of `text` in order. Tokens that are not `everywhere` are found only where
  // they lie inside one of `control_ranges` (sorted, disjoint).
  void cut(std::string_view text, std::span<const ByteRange> control_ranges,
           std::vector<PromptPart>& out) const;

 private:
  struct Node {
    std::uint32_t first_child = 0;  // 0: none (the root is nobody's child)
    std::uint32_t next_sibling = 0;
    std::uint32_t suffix = 0;      // the longest proper suffix that is a node
    std::uint32_t next_match = 0;  // the longest proper suffix that is a pattern; 0: none
    TokenId token = -1;            // of the pattern that ends here
    std::uint32_t depth = 0;       // bytes from the root
    unsigned char byte = 0;
    bool everywhere = false;
  };
  struct Match {
    std::size_t end;
    std::uint32_t node;
  };

  [[nodiscard]] std::uint32_t child(std::uint32_t node, unsigned char byte) const noexcept;
  [[nodiscard]] bool is_allowed(const Match& match,
                                std::span<const ByteRange> control_ranges) const noexcept;
  [[nodiscard]] std::vector<PromptPart> choose(std::size_t n_bytes, std::vector<Match> matches,
                                               std::span<const ByteRange> control_ranges) const;
  [[nodiscard]] std::vector<Match> find_matches(std::string_view text,
                                                std::span<const ByteRange> control_ranges) const;

  std::vector<Node> nodes_;
  std::array<std::uint32_t, 256> root_children_{};
};

}  // namespace specdec
