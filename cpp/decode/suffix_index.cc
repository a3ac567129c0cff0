#include "decode/suffix_index.h"

#include <algorithm>

namespace specdec {
namespace {

// Suffixes that learn of a new occurrence, longest first. There are seldom more; in a text that
// repeats itself for long, the shortest ones remember an older place.
constexpr int kMaxRefreshed = 64;

std::size_t hash_of(std::int32_t state, TokenId token) {
  std::uint64_t x = static_cast<std::uint64_t>(static_cast<std::uint32_t>(state)) << 32 |
                    static_cast<std::uint32_t>(token);
  x *= 0x9E3779B97F4A7C15ULL;
  return static_cast<std::size_t>(x ^ (x >> 29));
}

std::size_t index(std::int32_t n) { return static_cast<std::size_t>(n); }

}  // namespace

SuffixIndex::SuffixIndex() : states_(1), slots_(16) {}

std::size_t SuffixIndex::n_bytes() const {
  return text_.capacity() * sizeof(TokenId) + states_.capacity() * sizeof(State) +
         edges_.capacity() * sizeof(Edge) + slots_.capacity() * sizeof(std::int32_t);
}

std::int32_t SuffixIndex::find_edge(std::int32_t state, TokenId token) const {
  const std::int32_t first = states_[index(state)].first_edge;
  if (first < 0) return -1;
  if (edges_[index(first)].token == token) return first;
  if (edges_[index(first)].next < 0) return -1;
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t i = hash_of(state, token) & mask;; i = (i + 1) & mask) {
    const std::int32_t slot = slots_[i];
    if (slot == 0) return -1;
    const Edge& edge = edges_[index(slot - 1)];
    if (edge.state == state && edge.token == token) return slot - 1;
  }
}

void SuffixIndex::insert_slot(std::int32_t edge) {
  const Edge& e = edges_[index(edge)];
  const std::size_t mask = slots_.size() - 1;
  std::size_t i = hash_of(e.state, e.token) & mask;
  while (slots_[i] != 0) i = (i + 1) & mask;
  slots_[i] = edge + 1;
}

// Most states have one edge, found without the table; later ones follow it in the list.
void SuffixIndex::add_edge(std::int32_t state, TokenId token, std::int32_t target) {
  const auto edge = static_cast<std::int32_t>(edges_.size());
  State& s = states_[index(state)];
  if (s.first_edge < 0) {
    edges_.push_back({state, token, target, -1});
    s.first_edge = edge;
    return;
  }
  Edge& first = edges_[index(s.first_edge)];
  const std::int32_t next = first.next;
  first.next = edge;
  edges_.push_back({state, token, target, next});
  if (2 * (n_slots_used_ + 1) > slots_.size()) {
    const std::vector<std::int32_t> old = std::move(slots_);
    slots_.assign(2 * old.size(), 0);
    for (const std::int32_t slot : old) {
      if (slot != 0) insert_slot(slot - 1);
    }
  }
  insert_slot(edge);
  ++n_slots_used_;
}

// Blumer et al. 1985: the new whole text, and one split state when a suffix of it turns out to
// occur in other places than the strings it shared a state with.
void SuffixIndex::extend(TokenId token) {
  const auto at = static_cast<std::int32_t>(text_.size());
  text_.push_back(token);
  const auto fresh = static_cast<std::int32_t>(states_.size());
  states_.push_back({.length = states_[index(end_)].length + 1, .link = 0, .last = at});
  std::int32_t state = end_;
  std::int32_t edge = -1;
  for (; state >= 0 && (edge = find_edge(state, token)) < 0; state = states_[index(state)].link)
    add_edge(state, token, fresh);
  if (state >= 0) {
    const std::int32_t target = edges_[index(edge)].target;
    const std::int32_t length = states_[index(state)].length + 1;
    if (states_[index(target)].length == length) {
      states_[index(fresh)].link = target;
    } else {
      const auto split = static_cast<std::int32_t>(states_.size());
      State copy = states_[index(target)];
      copy.length = length;
      copy.first_edge = -1;
      states_.push_back(copy);
      for (std::int32_t e = states_[index(target)].first_edge; e >= 0; e = edges_[index(e)].next) {
        const Edge from = edges_[index(e)];
        add_edge(split, from.token, from.target);
      }
      states_[index(target)].link = split;
      states_[index(fresh)].link = split;
      for (; state >= 0; state = states_[index(state)].link) {
        const std::int32_t e = find_edge(state, token);
        if (e < 0 || edges_[index(e)].target != target) break;
        edges_[index(e)].target = split;
      }
    }
  }
  end_ = fresh;

  const std::int32_t link = states_[index(fresh)].link;
  match_ = {};
  if (link > 0) {
    const std::int32_t last = states_[index(link)].last;
    match_ = {.length = states_[index(link)].length, .next = last + 1, .period = at - last};
  }
  int n = 0;
  for (std::int32_t s = link; s > 0 && n < kMaxRefreshed; s = states_[index(s)].link, ++n)
    states_[index(s)].last = at;
}

void SuffixIndex::append(TokenId token) { extend(token); }

void SuffixIndex::append_separator() {
  if (text_.empty()) return;
  // Unique, so that nothing that contains it occurs twice.
  extend(separator_--);
  match_ = {};
}

void SuffixIndex::finish() {
  // A state's occurrences are those of the states that link to it, which are longer.
  std::vector<std::int32_t> order(states_.size());
  std::vector<std::int32_t> start(text_.size() + 2);
  for (const State& state : states_) ++start[index(state.length) + 1];
  for (std::size_t i = 1; i < start.size(); ++i) start[i] += start[i - 1];
  for (std::size_t s = 0; s < states_.size(); ++s)
    order[index(start[index(states_[s].length)]++)] = static_cast<std::int32_t>(s);
  for (std::size_t i = order.size(); i-- > 1;) {
    const State& state = states_[index(order[i])];
    if (state.link < 0) continue;
    State& parent = states_[index(state.link)];
    parent.last = std::max(parent.last, state.last);
  }
}

void SuffixIndex::Cursor::push(const SuffixIndex& text, TokenId token) {
  std::int32_t edge = -1;
  while (state_ > 0 && (edge = text.find_edge(state_, token)) < 0) {
    state_ = text.states_[index(state_)].link;
    length_ = text.states_[index(state_)].length;
  }
  if (state_ == 0) edge = text.find_edge(0, token);
  if (edge < 0) return;
  state_ = text.edges_[index(edge)].target;
  ++length_;
}

SuffixMatch SuffixIndex::Cursor::match(const SuffixIndex& text) const {
  if (state_ == 0) return {};
  return {.length = length_, .next = text.states_[index(state_)].last + 1, .period = 0};
}

std::shared_ptr<const SuffixIndex> make_suffix_corpus(std::span<const std::vector<TokenId>> texts,
                                                      const std::function<void()>& poll) {
  constexpr std::size_t kPollTokens = 1 << 15;
  auto corpus = std::make_shared<SuffixIndex>();
  for (const std::vector<TokenId>& text : texts) {
    if (text.empty()) continue;
    if (!corpus->text().empty()) corpus->append_separator();
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (poll && i % kPollTokens == 0) poll();
      corpus->append(text[i]);
    }
  }
  if (corpus->text().empty()) return nullptr;
  corpus->finish();
  return corpus;
}

}  // namespace specdec
