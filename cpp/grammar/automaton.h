// A grammar as states that read bytes and call rules.
#pragma once

#include <cstdint>
#include <vector>

#include "grammar/syntax.h"

namespace specdec::grammar {

enum class StateKind : std::uint8_t { kBytes, kSplit, kCall, kReturn };

struct State {
  StateKind kind = StateKind::kReturn;
  std::uint32_t at = 0;    // kBytes: set; kSplit: first of `targets`; kCall: rule
  std::uint32_t next = 0;  // kBytes, kCall: state behind; kSplit: end of `targets`
};

struct Automaton {
  std::vector<State> states;
  std::vector<ByteSet> sets;
  std::vector<std::uint32_t> targets;
  std::vector<std::uint32_t> rule_starts;  // [n_rules]
  std::uint32_t root = 0;                  // rule
};

// Throws Error(kInvalidArgument) when a rule may call itself before it has read anything, or when
// there would be too many states.
[[nodiscard]] Automaton make_automaton(const Syntax& syntax, Rule root);

}  // namespace specdec::grammar
