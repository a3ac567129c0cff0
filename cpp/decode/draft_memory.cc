#include "decode/draft_memory.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <mutex>
#include <string>
#include <utility>

#include "base/error.h"

namespace specdec {
namespace {

constexpr std::uint64_t kBase = 0x9E3779B97F4A7C15ULL;  // of the polynomial; odd
constexpr int kOverlap = 32;      // tokens that a stored end begins before what is new in it
constexpr int kGoOnMatch = 8;     // where a text ends, another goes on that holds so much of it
constexpr int kMostGoOn = 4;      // times, in one draft
constexpr int kTokensPerRow = 8;  // of the memory's size, for a row of successors

std::uint64_t mix(std::uint64_t x) {
  x ^= x >> 32;
  x *= 0xE9846AF9B1A615DULL;
  x ^= x >> 32;
  x *= 0xE9846AF9B1A615DULL;
  return x ^ (x >> 28);
}

std::uint64_t digit(TokenId token) { return std::uint64_t{static_cast<std::uint32_t>(token)} + 1; }

// base^k, base^0 first.
template <std::size_t N>
constexpr std::array<std::uint64_t, N> powers(std::uint64_t base) {
  std::array<std::uint64_t, N> all{};
  std::uint64_t power = 1;
  for (std::uint64_t& p : all) {
    p = power;
    power *= base;
  }
  return all;
}
constexpr auto kPowers = powers<33>(kBase);

// Of the tokens with this polynomial, under a key.
std::uint64_t hash_of(std::uint64_t key, int n, std::uint64_t polynomial) {
  return mix(polynomial ^ mix(key + static_cast<std::uint64_t>(n)));
}

std::uint32_t tag_of(std::uint64_t hash) { return static_cast<std::uint32_t>(hash); }

std::size_t index_of(int n) { return static_cast<std::size_t>(n); }

}  // namespace

DraftMemory::DraftMemory(int max_tokens, std::uint32_t first_position)
    : max_tokens_(max_tokens), first_position_(first_position), next_position_(first_position) {
  if (max_tokens < kLeastTokens || max_tokens > kMostTokens) {
    throw_invalid("the memory's max_tokens must be " + std::to_string(kLeastTokens) + " to " +
                  std::to_string(kMostTokens) + ", got " + std::to_string(max_tokens));
  }
}

// Never back: others may use it at once.
void DraftMemory::touch(const Text& text, std::uint64_t time) {
  std::uint64_t used = text.used.load();
  while (used < time && !text.used.compare_exchange_weak(used, time)) {
  }
}

std::size_t DraftMemory::bucket_of(std::uint64_t hash) const {
  return static_cast<std::size_t>(hash >> 32) & (levels_[0].size() - 1);
}

DraftMemory::Place DraftMemory::place_of(const Slot& slot) const {
  auto at = texts_.upper_bound(slot.position);
  if (at == texts_.begin()) return {};
  --at;
  const std::size_t offset = slot.position - at->first;
  if (offset >= at->second->tokens.size()) return {};
  return {.text = at->second.get(), .at = offset};
}

// Levels below from_level are not looked at.
DraftMemory::Place DraftMemory::find(std::uint64_t key, std::span<const TokenId> text,
                                     std::size_t from_level) const {
  if (levels_[0].empty()) return {};
  std::array<std::uint64_t, kLevels.size()> hashes{};
  std::uint64_t polynomial = 0;
  int n = 0;
  for (std::size_t level = 0; level < kLevels.size(); ++level) {
    if (text.size() < index_of(kLevels[level])) break;
    for (; n < kLevels[level]; ++n)
      polynomial += digit(text[text.size() - 1 - index_of(n)]) * kPowers[index_of(n)];
    hashes[level] = hash_of(key, n, polynomial);
  }
  for (std::size_t level = kLevels.size(); level-- > from_level;) {
    if (text.size() < index_of(kLevels[level])) continue;
    for (const Slot& slot : levels_[level][bucket_of(hashes[level])]) {
      if (slot.position == 0 || slot.tag != tag_of(hashes[level])) continue;
      Place place = place_of(slot);
      if (place.text == nullptr || place.text->key != key) continue;
      const std::vector<TokenId>& known = place.text->tokens;
      const std::size_t most = std::min({text.size(), place.at, index_of(kMostMatch)});
      std::size_t same = 0;
      while (same < most && known[place.at - 1 - same] == text[text.size() - 1 - same]) ++same;
      if (same < index_of(kLevels[level])) continue;
      place.length = static_cast<int>(same);
      return place;
    }
  }
  return {};
}

int DraftMemory::look_up(std::uint64_t key, std::span<const TokenId> text, int max_tokens,
                         std::vector<TokenId>& out) const {
  if (max_tokens < 1) return 0;
  const std::shared_lock lock(mutex_);
  Place place = find(key, text);
  if (place.text == nullptr) return 0;
  const int length = place.length;
  const std::size_t limit = out.size() + index_of(max_tokens);
  const std::span<const TokenId> end = text.last(std::min(text.size(), index_of(kMostMatch)));
  std::vector<TokenId> context;
  for (int part = 0; place.text != nullptr && part < kMostGoOn; ++part) {
    touch(*place.text, now());
    const std::size_t first = out.size();
    const std::vector<TokenId>& known = place.text->tokens;
    while (out.size() < limit && place.at < known.size()) out.push_back(known[place.at++]);
    if (out.size() == limit) break;
    if (context.empty()) context.assign(end.begin(), end.end());
    context.insert(context.end(), out.begin() + static_cast<std::ptrdiff_t>(first), out.end());
    place = find(key, context, 2);
    static_assert(kLevels[2] == kGoOnMatch);
  }
  return length;
}

// How much of the beginning of a text is there already.
std::size_t DraftMemory::n_known(std::uint64_t time, std::uint64_t key,
                                 std::span<const TokenId> text) const {
  constexpr std::size_t kLast = kLevels.size() - 1;
  const auto step = index_of(kLevels[kLast]);
  if (text.size() <= step) {
    const Place place = find(key, text.first(text.size() - 1));
    const bool known = place.text != nullptr && index_of(place.length) == text.size() - 1 &&
                       place.text->tokens[place.at] == text.back();
    if (known) touch(*place.text, time);
    return known ? text.size() : 0;
  }
  std::size_t known = 0;
  while (known < text.size()) {
    const std::size_t from = std::max(known, step);
    Place place = find(key, text.first(from), kLast);
    if (place.text == nullptr) break;
    touch(*place.text, time);
    const std::vector<TokenId>& tokens = place.text->tokens;
    std::size_t at = from;
    while (at < text.size() && place.at < tokens.size() && tokens[place.at] == text[at]) {
      ++at;
      ++place.at;
    }
    if (at == known) break;
    known = at;
    if (at == from && from == step) break;
  }
  return known;
}

// Whether a text holds all of this one. Beginnings that many have lead n_known() to the newest of
// their ends, and this may be that of another.
bool DraftMemory::holds(std::uint64_t time, std::uint64_t key,
                        std::span<const TokenId> text) const {
  const Place place = find(key, text.first(text.size() - 1), kLevels.size() - 1);
  if (place.text == nullptr || place.at + 1 < text.size()) return false;
  const std::span<const TokenId> known = place.text->tokens;
  const bool same = std::ranges::equal(text, known.first(place.at + 1).last(text.size()));
  if (same) touch(*place.text, time);
  return same;
}

void DraftMemory::index(std::uint32_t base, const Text& text) {
  std::vector<std::uint64_t> prefix(text.tokens.size() + 1);
  for (std::size_t i = 0; i < text.tokens.size(); ++i)
    prefix[i + 1] = prefix[i] * kBase + digit(text.tokens[i]);
  for (std::size_t level = 0; level < kLevels.size(); ++level) {
    const auto n = index_of(kLevels[level]);
    for (std::size_t at = n; at < text.tokens.size(); ++at) {
      const std::uint64_t hash =
          hash_of(text.key, kLevels[level], prefix[at] - prefix[at - n] * kPowers[n]);
      Bucket& bucket = levels_[level][bucket_of(hash)];
      // The place of the same tokens, or else the oldest one; an empty slot is older than any.
      auto slot = std::find_if(bucket.begin(), bucket.end(),
                               [&](const Slot& s) { return s.tag == tag_of(hash); });
      if (slot == bucket.end()) {
        slot = std::min_element(bucket.begin(), bucket.end(), [](const Slot& a, const Slot& b) {
          return a.position < b.position;
        });
      }
      *slot = {tag_of(hash), base + static_cast<std::uint32_t>(at)};
    }
  }
}

// Positions begin anew.
void DraftMemory::index_again() {
  for (auto& level : levels_) std::fill(level.begin(), level.end(), Bucket{});
  std::map<std::uint32_t, std::unique_ptr<Text>> old = std::move(texts_);
  texts_.clear();
  next_position_ = 1;
  n_tokens_ = 0;
  for (auto& [position, text] : old) {
    index(next_position_, *text);
    const auto n = static_cast<std::uint32_t>(text->tokens.size());
    texts_.emplace(next_position_, std::move(text));
    n_tokens_ += static_cast<int>(n);
    next_position_ += n + 1;
  }
}

// False: of what would have to go something was used later than that.
bool DraftMemory::make_room(std::uint64_t time, std::size_t n_tokens) {
  while (n_tokens_ > 0 && n_tokens_ + static_cast<int>(n_tokens) > max_tokens_) {
    const auto oldest = std::min_element(
        texts_.begin(), texts_.end(),
        [](const auto& a, const auto& b) { return a.second->used.load() < b.second->used.load(); });
    if (oldest->second->used.load() > time) return false;
    n_tokens_ -= static_cast<int>(oldest->second->tokens.size());
    texts_.erase(oldest);
  }
  return true;
}

void DraftMemory::store(std::uint64_t time, std::uint64_t key, std::span<const TokenId> text) {
  if (!make_room(time, text.size())) return;
  if (levels_[0].empty()) {
    const std::size_t n = std::bit_ceil(index_of(max_tokens_) / (kBucketSlots / 2));
    std::array<std::vector<Bucket>, kLevels.size()> levels;  // all of them or none
    for (auto& level : levels) level.resize(n);
    levels_ = std::move(levels);
  }
  if (text.size() >= std::numeric_limits<std::uint32_t>::max() - next_position_) index_again();
  auto made = std::make_unique<Text>();
  made->key = key;
  made->tokens.assign(text.begin(), text.end());
  touch(*made, time);
  const std::uint32_t base = next_position_;
  index(base, *made);
  texts_.emplace(base, std::move(made));
  n_tokens_ += static_cast<int>(text.size());
  next_position_ += static_cast<std::uint32_t>(text.size()) + 1;
  ++n_changes_;
}

void DraftMemory::add(std::uint64_t key, std::span<const TokenId> text) {
  const std::unique_lock lock(mutex_);
  add_locked(now(), key, text);
}

void DraftMemory::add_at(std::uint64_t time, std::uint64_t key, std::span<const TokenId> text) {
  const std::unique_lock lock(mutex_);
  add_locked(time, key, text);
}

void DraftMemory::add_locked(std::uint64_t time, std::uint64_t key, std::span<const TokenId> text) {
  text = new_in(time, key, text.last(std::min(text.size(), index_of(max_tokens_))));
  if (!text.empty()) store(time, key, text);
}

// What is to be stored of a text that is no longer than the memory.
std::span<const TokenId> DraftMemory::new_in(std::uint64_t time, std::uint64_t key,
                                             std::span<const TokenId> text) const {
  // Nothing follows the shortest match otherwise.
  if (text.size() <= index_of(kLeastMatch)) return {};
  const std::size_t known = n_known(time, key, text);
  if (known == text.size()) return {};
  text = text.subspan(known > index_of(kOverlap) ? known - index_of(kOverlap) : 0);
  return holds(time, key, text) ? text.first(0) : text;
}

std::span<const TokenId> DraftMemory::missing(std::uint64_t key,
                                              std::span<const TokenId> text) const {
  if (text.size() > index_of(max_tokens_)) return text;
  const std::shared_lock lock(mutex_);
  return new_in(0, key, text);
}

int DraftMemory::max_rows() const {
  return static_cast<int>(std::bit_ceil(index_of(max_tokens_ / kTokensPerRow)));
}

std::size_t DraftMemory::row_of(std::uint64_t key, TokenId after) const {
  return static_cast<std::size_t>(mix(key + digit(after) * kBase)) & (rows_.size() - 1);
}

void DraftMemory::add_successors(std::uint64_t key, std::span<const Successors> rows) {
  add_successors_at(now(), key, rows);
}

void DraftMemory::add_successors_at(std::uint64_t time, std::uint64_t key,
                                    std::span<const Successors> rows) {
  if (rows.empty()) return;
  const std::unique_lock lock(mutex_);
  if (rows_.empty()) rows_.resize(index_of(max_rows()));
  for (const Successors& row : rows) {
    Row& place = rows_[row_of(key, row.after)];
    if (place.is_there && place.used > time) continue;
    if (!place.is_there) ++n_rows_;
    place = {.key = key, .is_there = true, .used = time, .successors = row};
  }
  ++n_changes_;
}

bool DraftMemory::find_successors(std::uint64_t key, TokenId after, std::span<TokenId> row) const {
  const std::shared_lock lock(mutex_);
  if (rows_.empty()) return false;
  const Row& place = rows_[row_of(key, after)];
  if (!place.is_there || place.key != key || place.successors.after != after) return false;
  const std::size_t n = std::min(row.size(), place.successors.best.size());
  std::copy_n(place.successors.best.begin(), n, row.begin());
  return true;
}

void DraftMemory::clear() {
  const std::unique_lock lock(mutex_);
  texts_.clear();
  for (auto& level : levels_) level = {};
  rows_ = {};
  n_tokens_ = n_rows_ = 0;
  next_position_ = first_position_;
  ++n_changes_;
}

DraftMemory::Stats DraftMemory::stats() const {
  const std::shared_lock lock(mutex_);
  std::size_t n_bytes = rows_.size() * sizeof(Row);
  for (const auto& level : levels_) n_bytes += level.size() * sizeof(Bucket);
  n_bytes += index_of(n_tokens_) * sizeof(TokenId) + texts_.size() * sizeof(Text);
  return {.max_tokens = max_tokens_,
          .max_rows = max_rows(),
          .n_tokens = n_tokens_,
          .n_texts = static_cast<int>(texts_.size()),
          .n_rows = n_rows_,
          .n_bytes = n_bytes,
          .n_changes = n_changes_};
}

void DraftMemory::visit(
    const std::function<void(std::uint64_t key, std::span<const TokenId> text)>& on_text,
    const std::function<void(std::uint64_t key, const Successors& row)>& on_row) const {
  const std::shared_lock lock(mutex_);
  std::vector<std::pair<std::uint64_t, const Text*>> order;  // others may use texts meanwhile
  for (const auto& [position, text] : texts_) order.emplace_back(text->used.load(), text.get());
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [used, text] : order) on_text(text->key, text->tokens);
  for (const Row& row : rows_)
    if (row.is_there) on_row(row.key, row.successors);
}

}  // namespace specdec
