#include "grammar/walker.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "base/error.h"

namespace specdec::grammar {
namespace {

constexpr std::size_t kMaxWays = 4096;
constexpr std::size_t kMaxPlaces = 1U << 17;  // 1 KiB each

constexpr std::uint64_t pair_of(std::uint32_t high, std::uint32_t low) noexcept {
  return std::uint64_t{high} << 32 | low;
}

}  // namespace

std::size_t Walker::WaysHash::operator()(const std::vector<Way>& ways) const noexcept {
  std::uint64_t hash = ways.size();
  for (const Way way : ways) hash = (hash ^ (way ^ way >> 29)) * 0x9E3779B97F4A7C15;
  return static_cast<std::size_t>(hash ^ hash >> 32);
}

Walker::Walker(std::shared_ptr<const Automaton> automaton) : automaton_(std::move(automaton)) {
  forget();
}

void Walker::forget() {
  places_.clear();
  next_.clear();
  for (auto& known : known_) known.clear();
  stack_.assign(1, {});
  stacks_.clear();
  keep({}, false);  // nowhere
  next_[kNowhere].fill(kNowhere);
  std::vector<Way> ways;
  bool may_end = false;
  add_ways(automaton_->rule_starts[automaton_->root], 0, ways, may_end);
  std::ranges::sort(ways);
  places_.push_back({std::move(ways), may_end});  // a place of its own, whatever its ways
  next_.emplace_back().fill(kUnknown);
}

ByteSet Walker::following(Place place) const {
  ByteSet set;
  for (const Way way : places_[place].ways)
    set |= automaton_->sets[automaton_->states[way >> 32].at];
  return set;
}

Walker::Place Walker::find(Place from, unsigned char byte) {
  std::vector<Way> ways;
  bool may_end = false;
  const std::size_t n = places_[from].ways.size();
  for (std::size_t i = 0; i < n; ++i) {
    const Way way = places_[from].ways[i];
    const State& state = automaton_->states[way >> 32];
    if (!automaton_->sets[state.at].test(byte)) continue;
    add_ways(state.next, static_cast<std::uint32_t>(way), ways, may_end);
  }
  std::ranges::sort(ways);
  const auto rest = std::ranges::unique(ways);
  ways.erase(rest.begin(), rest.end());
  const Place found = ways.empty() && !may_end ? kNowhere : keep(std::move(ways), may_end);
  next_[from][byte] = found;
  return found;
}

Walker::Place Walker::keep(std::vector<Way> ways, bool may_end) {
  const auto next = static_cast<Place>(places_.size());
  const auto [entry, is_new] = known_[may_end ? 1 : 0].try_emplace(ways, next);
  if (!is_new) return entry->second;
  if (next >= kMaxPlaces) throw_invalid("the grammar has too many ways to be read: simplify it");
  places_.push_back({std::move(ways), may_end});
  next_.emplace_back().fill(kUnknown);
  return next;
}

void Walker::add_ways(std::uint32_t first, std::uint32_t stack, std::vector<Way>& ways,
                      bool& may_end) {
  open_.assign(1, pair_of(first, stack));
  std::unordered_set<Way> seen;  // loops over what may be empty come back here
  const std::size_t most = ways.size() + kMaxWays;
  while (!open_.empty()) {
    const Way way = open_.back();
    open_.pop_back();
    const State& state = automaton_->states[way >> 32];
    const auto below = static_cast<std::uint32_t>(way);
    if (state.kind == StateKind::kBytes) {
      ways.push_back(way);
      continue;
    }
    if (!seen.insert(way).second) continue;
    if (ways.size() > most || seen.size() > 16 * kMaxWays) {
      throw_invalid("the grammar can be read in too many ways at once: simplify it");
    }
    switch (state.kind) {
      case StateKind::kSplit:
        for (std::uint32_t i = state.at; i < state.next; ++i)
          open_.push_back(pair_of(automaton_->targets[i], below));
        break;
      case StateKind::kCall: {
        const bool last = automaton_->states[state.next].kind == StateKind::kReturn;
        open_.push_back(
            pair_of(automaton_->rule_starts[state.at], last ? below : push(state.next, below)));
        break;
      }
      case StateKind::kReturn:
        if (below == 0) {
          may_end = true;
        } else {
          open_.push_back(pair_of(stack_[below].state, stack_[below].below));
        }
        break;
      case StateKind::kBytes:
        break;
    }
  }
}

std::uint32_t Walker::push(std::uint32_t state, std::uint32_t below) {
  const auto [entry, is_new] =
      stacks_.try_emplace(pair_of(state, below), static_cast<std::uint32_t>(stack_.size()));
  if (is_new) stack_.push_back({state, below});
  return entry->second;
}

}  // namespace specdec::grammar
