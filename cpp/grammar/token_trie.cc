#include "grammar/token_trie.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace specdec::grammar {
namespace {

constexpr std::size_t kMaxBytes = std::numeric_limits<std::uint16_t>::max();

}  // namespace

TokenTrie::TokenTrie(std::vector<std::string> texts, std::vector<TokenId> ends)
    : texts_(std::move(texts)), ends_(std::move(ends)) {
  std::ranges::sort(ends_);
  for (const TokenId end : ends_)
    if (static_cast<std::size_t>(end) < texts_.size())
      texts_[static_cast<std::size_t>(end)].clear();
  std::vector<TokenId> order;
  for (std::size_t i = 0; i < texts_.size(); ++i) {
    if (texts_[i].size() > kMaxBytes) texts_[i].clear();
    if (!texts_[i].empty()) order.push_back(static_cast<TokenId>(i));
  }
  const auto text_of = [this](TokenId token) { return text(token); };
  std::ranges::stable_sort(order, {}, text_of);

  std::vector<std::uint32_t> open;  // the nodes above, by depth
  const auto close = [&](std::size_t depth) {
    for (; open.size() > depth; open.pop_back())
      nodes_[open.back()].end = static_cast<std::uint32_t>(nodes_.size());
  };
  std::string_view before;
  for (const TokenId token : order) {
    const std::string_view bytes = text(token);
    const auto differs = std::ranges::mismatch(before, bytes);
    close(static_cast<std::size_t>(differs.in1 - before.begin()));
    for (std::size_t i = open.size(); i < bytes.size(); ++i) {
      open.push_back(static_cast<std::uint32_t>(nodes_.size()));
      nodes_.push_back({0, static_cast<std::uint32_t>(tokens_.size()), 0,
                        static_cast<std::uint16_t>(i + 1), static_cast<unsigned char>(bytes[i])});
    }
    max_depth_ = std::max(max_depth_, static_cast<int>(bytes.size()));
    if (nodes_[open.back()].n_tokens == kMaxBytes) continue;
    ++nodes_[open.back()].n_tokens;
    tokens_.push_back(token);
    before = bytes;
  }
  close(0);
}

bool TokenTrie::is_end(TokenId token) const noexcept {
  return std::ranges::binary_search(ends_, token);
}

std::string_view TokenTrie::text(TokenId token) const noexcept {
  if (token < 0 || static_cast<std::size_t>(token) >= texts_.size()) return {};
  return texts_[static_cast<std::size_t>(token)];
}

TokenId TokenTrie::longest(std::string_view text) const noexcept {
  TokenId found = -1;
  std::size_t at = 0, end = nodes_.size();
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    while (at < end && nodes_[at].byte != byte) at = nodes_[at].end;
    if (at >= end) break;
    if (nodes_[at].n_tokens > 0) found = tokens_[nodes_[at].token];
    end = nodes_[at].end;
    ++at;
  }
  return found;
}

}  // namespace specdec::grammar
