#include "decode/stop.h"

#include <algorithm>

#include "base/error.h"

namespace specdec {

StopState::StopState(std::span<const TokenId> eog, std::span<const std::string> stop,
                     const TokenPieces* pieces)
    : eog_(eog.begin(), eog.end()), stop_(stop.begin(), stop.end()), pieces_(pieces) {
  for (const std::string& s : stop_) {
    if (s.empty()) throw_invalid("stop must not contain an empty string");
  }
  if (!stop_.empty() && pieces_ == nullptr) throw_invalid("stop strings need the text of tokens");
}

bool StopState::push(TokenId token) {
  SPECDEC_CHECK(cause_ == Cause::kNone);
  if (std::find(eog_.begin(), eog_.end(), token) != eog_.end()) {
    cause_ = Cause::kEndOfSequence;
    eog_token_ = token;
    return true;
  }
  const std::size_t before = text_.size();
  if (pieces_ != nullptr) text_ += pieces_->piece(token);
  ends_.push_back(text_.size());

  // The match that ends first; of those that end together the longest.
  std::size_t first_end = std::string::npos;
  std::size_t begin = 0;
  for (const std::string& s : stop_) {
    const std::size_t from = before >= s.size() ? before - s.size() + 1 : 0;
    const std::size_t at = text_.find(s, from);
    if (at == std::string::npos) continue;
    const std::size_t end = at + s.size();
    if (end < first_end || (end == first_end && at < begin)) {
      first_end = end;
      begin = at;
      stop_hit_ = &s;
    }
  }
  if (first_end == std::string::npos) return false;
  cause_ = Cause::kStopString;
  text_.resize(begin);
  while (!ends_.empty() && begin_of(ends_.size() - 1) >= begin) ends_.pop_back();
  if (!ends_.empty()) ends_.back() = std::min(ends_.back(), begin);
  return true;
}

std::size_t StopState::held_back_bytes() const {
  std::size_t held = 0;
  for (const std::string& s : stop_) {
    std::size_t n = std::min(s.size() - 1, text_.size());
    for (; n > held; --n) {
      if (text_.compare(text_.size() - n, n, s, 0, n) == 0) break;
    }
    held = std::max(held, n);
  }
  return held;
}

std::size_t StopState::n_releasable() const {
  if (cause_ != Cause::kNone || stop_.empty()) return ends_.size();
  // No stop string can begin before `safe`. A token is final when its text ends there at the
  // latest; one without text at the edge is not, because a stop string that begins there would cut
  // it.
  const std::size_t safe = text_.size() - held_back_bytes();
  std::size_t n = ends_.size();
  while (n > 0 && (ends_[n - 1] > safe || begin_of(n - 1) >= safe)) --n;
  return n;
}

std::string_view StopState::text(std::size_t from, std::size_t to) const {
  if (pieces_ == nullptr || from >= to) return {};
  return std::string_view(text_).substr(begin_of(from), ends_[to - 1] - begin_of(from));
}

void StopState::drop_after(std::size_t n) {
  if (n >= ends_.size()) return;
  ends_.resize(n);
  text_.resize(n == 0 ? 0 : ends_.back());
}

}  // namespace specdec
