#include "grammar/automaton.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace specdec::grammar {
namespace {

constexpr std::size_t kMaxStates = 1U << 20;
constexpr int kMaxDepth = 2000;  // of parts in parts

// Marks the rules of which something holds, as far as it follows from what is marked already.
template <typename Holds>
void spread(const Syntax& syntax, std::vector<bool>& marked, const Holds& holds) {
  for (bool changed = true; changed;) {
    changed = false;
    for (Rule rule = 0; rule < syntax.n_rules(); ++rule) {
      if (marked[rule] || !holds(syntax.rule(rule))) continue;
      marked[rule] = changed = true;
    }
  }
}

// Which parts anything matches.
class Matches {
 public:
  explicit Matches(const Syntax& syntax) : syntax_(syntax), some_(syntax.n_rules(), false) {
    spread(syntax, some_, [this](Part part) { return any(part); });
  }

  [[nodiscard]] bool any_of_rule(Rule rule) const { return some_[rule]; }
  [[nodiscard]] bool any(Part part) const {
    const PartData& data = syntax_.part(part);
    const auto some = [this](Part inner) { return any(inner); };
    switch (data.kind) {
      case PartKind::kBytes:
        return syntax_.set(data.at).any();
      case PartKind::kSequence:
        return std::ranges::all_of(data.parts, some);
      case PartKind::kChoice:
        return std::ranges::any_of(data.parts, some);
      case PartKind::kRepeat:
        return data.low == 0 || any(data.at);
      case PartKind::kRule:
        break;
    }
    return some_[data.at];
  }

 private:
  const Syntax& syntax_;
  std::vector<bool> some_;  // [rules]
};

// Which parts may match no byte at all, and what rules they may call before they have read one.
class EmptyMatches {
 public:
  explicit EmptyMatches(const Syntax& syntax) : syntax_(syntax), empty_(syntax.n_rules(), false) {
    spread(syntax, empty_, [this](Part part) { return may_be_empty(part); });
  }

  // Throws when a rule reaches itself.
  void check() {
    state_.assign(syntax_.n_rules(), 0);
    for (Rule rule = 0; rule < syntax_.n_rules(); ++rule) visit(rule, 0);
  }

 private:
  bool may_be_empty(Part part) const {
    const PartData& data = syntax_.part(part);
    const auto may = [this](Part inner) { return may_be_empty(inner); };
    switch (data.kind) {
      case PartKind::kBytes:
        return false;
      case PartKind::kSequence:
        return std::ranges::all_of(data.parts, may);
      case PartKind::kChoice:
        return std::ranges::any_of(data.parts, may);
      case PartKind::kRepeat:
        return data.low == 0 || may_be_empty(data.at);
      case PartKind::kRule:
        break;
    }
    return empty_[data.at];
  }

  void first_calls(Part part, std::vector<Rule>& calls) const {
    const PartData& data = syntax_.part(part);
    if (data.kind == PartKind::kRule) calls.push_back(data.at);
    if (data.kind == PartKind::kRepeat && data.high != 0) first_calls(data.at, calls);
    for (const Part inner : data.parts) {
      first_calls(inner, calls);
      if (data.kind == PartKind::kSequence && !may_be_empty(inner)) break;
    }
  }

  void visit(Rule rule, int depth) {
    if (state_[rule] == 2) return;
    if (state_[rule] == 1) {
      throw_invalid(
          "the grammar never ends: a rule calls itself before it has read anything "
          "(left recursion); let it read something first");
    }
    if (depth > kMaxDepth) throw_invalid("the grammar's rules call each other too deeply");
    state_[rule] = 1;
    std::vector<Rule> calls;
    first_calls(syntax_.rule(rule), calls);
    for (const Rule call : calls) visit(call, depth + 1);
    state_[rule] = 2;
  }

  const Syntax& syntax_;
  std::vector<bool> empty_;
  std::vector<char> state_;  // 1: being visited, 2: done
};

class Builder {
 public:
  Builder(const Syntax& syntax, const Matches& matches, Automaton& out)
      : syntax_(syntax), matches_(matches), out_(out) {}

  void run() {
    set_index_.assign(kMaxParts, 0);
    const std::uint32_t end = add({});
    for (Rule rule = 0; rule < syntax_.n_rules(); ++rule)
      out_.rule_starts.push_back(build(syntax_.rule(rule), end, 0));
  }

 private:
  std::uint32_t add(State state) {
    if (out_.states.size() >= kMaxStates) {
      throw_invalid("the grammar is too large: over " + std::to_string(kMaxStates) +
                    " states; lower its counts and lengths");
    }
    out_.states.push_back(state);
    return static_cast<std::uint32_t>(out_.states.size() - 1);
  }

  std::uint32_t split(std::span<const std::uint32_t> targets) {
    const auto first = static_cast<std::uint32_t>(out_.targets.size());
    out_.targets.insert(out_.targets.end(), targets.begin(), targets.end());
    return add({StateKind::kSplit, first, static_cast<std::uint32_t>(out_.targets.size())});
  }

  // The state from which the part is read, and then what `next` reads.
  std::uint32_t build(Part part, std::uint32_t next, int depth) {
    if (depth > kMaxDepth) throw_invalid("the grammar nests too deeply");
    const PartData& data = syntax_.part(part);
    switch (data.kind) {
      case PartKind::kBytes:
        return add({StateKind::kBytes, set_of(data.at), next});
      case PartKind::kSequence:
        for (std::size_t i = data.parts.size(); i-- > 0;)
          next = build(data.parts[i], next, depth + 1);
        return next;
      case PartKind::kChoice: {
        std::vector<std::uint32_t> targets;
        for (const Part choice : data.parts)  // a way on that never ends would be a trap
          if (matches_.any(choice)) targets.push_back(build(choice, next, depth + 1));
        return split(targets);
      }
      case PartKind::kRepeat:
        return repeat(data, next, depth);
      case PartKind::kRule:
        break;
    }
    return add({StateKind::kCall, data.at, next});
  }

  std::uint32_t repeat(const PartData& data, std::uint32_t next, int depth) {
    if (!matches_.any(data.at)) return next;
    if (data.high == kEndless) {
      const std::uint32_t loop = split(std::vector<std::uint32_t>{0, next});
      const std::uint32_t body = build(data.at, loop, depth + 1);
      out_.targets[out_.states[loop].at] = body;
      next = loop;
    } else {
      const std::uint32_t end = next;
      for (int i = data.low; i < data.high; ++i) {
        const std::uint32_t body = build(data.at, next, depth + 1);
        next = split(std::vector<std::uint32_t>{body, end});
      }
    }
    for (int i = 0; i < data.low; ++i) next = build(data.at, next, depth + 1);
    return next;
  }

  std::uint32_t set_of(std::uint32_t at) {
    if (set_index_[at] == 0) {
      const ByteSet& set = syntax_.set(at);
      const auto found = std::ranges::find(out_.sets, set);
      set_index_[at] = static_cast<std::uint32_t>(found - out_.sets.begin()) + 1;
      if (found == out_.sets.end()) out_.sets.push_back(set);
    }
    return set_index_[at] - 1;
  }

  const Syntax& syntax_;
  const Matches& matches_;
  Automaton& out_;
  std::vector<std::uint32_t> set_index_;  // [sets of the syntax] index in the automaton's + 1
};

}  // namespace

Automaton make_automaton(const Syntax& syntax, Rule root) {
  const Matches matches(syntax);
  if (!matches.any_of_rule(root)) throw_invalid("no text matches the grammar");
  EmptyMatches(syntax).check();
  Automaton automaton;
  automaton.root = root;
  Builder(syntax, matches, automaton).run();
  return automaton;
}

}  // namespace specdec::grammar
