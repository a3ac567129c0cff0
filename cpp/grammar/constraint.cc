#include "grammar/constraint.h"

#include <algorithm>
#include <bit>
#include <string>
#include <utility>

namespace specdec::grammar {
namespace {

constexpr std::size_t kMasksBytes = std::size_t{16} << 20;
constexpr std::size_t kMostForced = 64;  // bytes

}  // namespace

GrammarConstraint::GrammarConstraint(std::shared_ptr<const Automaton> automaton,
                                     std::shared_ptr<const TokenTrie> vocabulary)
    : vocabulary_(std::move(vocabulary)), walker_(std::move(automaton)), places_{walker_.start()} {}

Walker::Place GrammarConstraint::after(Walker::Place place, TokenId token) {
  const std::string_view bytes = vocabulary_->text(token);
  if (bytes.empty()) return Walker::kNowhere;
  for (const char c : bytes) place = walker_.step(place, static_cast<unsigned char>(c));
  return place;
}

bool GrammarConstraint::go_to(std::span<const TokenId> text) {
  if (walker_.is_large()) {
    walker_.forget();
    masks_.clear();
    text_.clear();
    places_.assign(1, walker_.start());
  }
  const auto differs = std::ranges::mismatch(text_, text);
  const auto n_same = static_cast<std::size_t>(differs.in1 - text_.begin());
  text_.resize(n_same);
  places_.resize(n_same + 1);
  for (const TokenId token : text.subspan(n_same)) {
    const Walker::Place place = after(places_.back(), token);
    if (place == Walker::kNowhere) return false;
    text_.push_back(token);
    places_.push_back(place);
  }
  return true;
}

void GrammarConstraint::fill(Walker::Place from, std::span<std::uint32_t> allowed) {
  const auto allow_token = [&](TokenId token) {
    const auto index = static_cast<std::size_t>(token);
    if (index / 32 < allowed.size()) allowed[index / 32] |= std::uint32_t{1} << (index % 32);
  };
  if (walker_.may_end(from)) std::ranges::for_each(vocabulary_->ends(), allow_token);
  std::vector<Walker::Place> places(static_cast<std::size_t>(vocabulary_->max_depth()) + 1, from);
  const std::span<const TokenTrie::Node> nodes = vocabulary_->nodes();
  for (std::size_t i = 0; i < nodes.size();) {
    const TokenTrie::Node& node = nodes[i];
    const Walker::Place place = walker_.step(places[node.depth - 1U], node.byte);
    if (place == Walker::kNowhere) {
      i = node.end;
      continue;
    }
    places[node.depth] = place;
    for (const TokenId token : vocabulary_->tokens().subspan(node.token, node.n_tokens))
      allow_token(token);
    ++i;
  }
}

void GrammarConstraint::allow(std::span<const TokenId> generated,
                              std::span<std::uint32_t> allowed) {
  if (!go_to(generated)) {
    std::ranges::fill(allowed, ~std::uint32_t{0});
    return;
  }
  std::ranges::fill(allowed, 0U);
  // A text comes back to the same places again and again: within a string, between numbers.
  const auto found = masks_.find(places_.back());
  if (found != masks_.end() && found->second.size() == allowed.size()) {
    std::ranges::copy(found->second, allowed.begin());
    return;
  }
  fill(places_.back(), allowed);
  if ((masks_.size() + 1) * allowed.size_bytes() > kMasksBytes) masks_.clear();
  masks_.insert_or_assign(places_.back(), Mask(allowed.begin(), allowed.end()));
}

std::size_t GrammarConstraint::n_allowed(std::span<const TokenId> generated,
                                         std::span<const TokenId> next) {
  if (!go_to(generated)) return 0;
  Walker::Place place = places_.back();
  for (std::size_t i = 0; i < next.size(); ++i) {
    if (vocabulary_->is_end(next[i])) return walker_.may_end(place) ? i + 1 : i;
    place = after(place, next[i]);
    if (place == Walker::kNowhere) return i;
  }
  return next.size();
}

std::vector<TokenId> GrammarConstraint::forced(std::span<const TokenId> generated) {
  if (!go_to(generated)) return {};
  std::string text;
  Walker::Place place = places_.back();
  while (text.size() < kMostForced && !walker_.may_end(place)) {
    const ByteSet bytes = walker_.following(place);
    if (bytes.count() != 1) break;
    unsigned byte = 0;
    while (!bytes.test(byte)) ++byte;
    text.push_back(static_cast<char>(byte));
    place = walker_.step(place, static_cast<unsigned char>(byte));
  }
  std::vector<TokenId> tokens;
  std::string_view rest = text;
  while (!rest.empty()) {
    const TokenId token = vocabulary_->longest(rest);
    if (token < 0) break;
    tokens.push_back(token);
    rest.remove_prefix(vocabulary_->text(token).size());
  }
  // The last one may be the beginning of a longer token.
  if (!tokens.empty() && !walker_.may_end(place)) tokens.pop_back();
  return tokens;
}

}  // namespace specdec::grammar
