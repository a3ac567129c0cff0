#include "kv/recurrent_cache.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace specdec {
namespace {

std::size_t index(int n) { return static_cast<std::size_t>(n); }

}  // namespace

RecurrentCache::RecurrentCache(std::shared_ptr<KvArena> arena, const RecurrentShape& shape,
                               int n_layers)
    : arena_(std::move(arena)), shape_(shape), layers_(index(n_layers)) {}

std::size_t RecurrentCache::states_bytes() const {
  return layers_.size() * static_cast<std::size_t>(shape_.state_stride()) * sizeof(float);
}

std::size_t RecurrentCache::log_bytes(int n_logged) const {
  return layers_.size() * index(n_logged) * static_cast<std::size_t>(shape_.input_stride()) *
         sizeof(float);
}

std::size_t RecurrentCache::n_bytes() const noexcept {
  const std::size_t n_states = checkpoints_.size() + (tips_ != nullptr ? 1 : 0);
  return n_states * states_bytes() + log_bytes(n_logged_);
}

std::size_t RecurrentCache::full_bytes(const RecurrentShape& shape, int n_layers) {
  const auto n_floats = static_cast<std::int64_t>(kMaxKept + 1) * shape.state_stride() +
                        kLogged * shape.input_stride();
  return index(n_layers) * static_cast<std::size_t>(n_floats) * sizeof(float);
}

float* RecurrentCache::state_of(const KvPage& states, int layer) const {
  return reinterpret_cast<float*>(states->data()) + layer * shape_.state_stride();
}

float* RecurrentCache::input(int layer, int position) const {
  const std::int64_t row = std::int64_t{layer} * n_logged_ + position % n_logged_;
  return reinterpret_cast<float*>(log_->data()) + row * shape_.input_stride();
}

std::optional<RecurrentCache::Source> RecurrentCache::kept_source(int layer, int n,
                                                                  const Checkpoint* without) const {
  const Layer& l = layers_[index(layer)];
  std::optional<Source> best;
  const auto offer = [&](int position, const float* state) {
    const bool leads_there = position == n || (position < n && position >= l.log_begin);
    if (leads_there && (!best || position > best->position)) best = Source{state, position};
  };
  offer(0, nullptr);
  for (const Checkpoint& c : checkpoints_) {
    if (&c != without && c.has[index(layer)]) offer(c.position, state_of(c.states, layer));
  }
  return best;
}

std::optional<RecurrentCache::Source> RecurrentCache::source(int layer, int n) const {
  const Layer& l = layers_[index(layer)];
  const std::optional<Source> kept = kept_source(layer, n);
  if (l.tip < 0 || l.tip > n || (l.tip < n && l.tip < l.log_begin)) return kept;
  if (kept && kept->position > l.tip) return kept;
  return Source{state_of(tips_, layer), l.tip};
}

// Layers that have not been fed so far (of a pass through some of them) stay where they are.
bool RecurrentCache::all_reach(int n) const {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    if (!source(static_cast<int>(l), std::min(n, layers_[l].end))) return false;
  }
  return true;
}

int RecurrentCache::reachable(int n) const {
  if (all_reach(n)) return n;
  int best = 0;
  for (const Checkpoint& c : checkpoints_) {
    if (c.position < n && all_reach(c.position)) best = std::max(best, c.position);
  }
  for (const Layer& l : layers_) {
    if (l.tip < n && l.tip > best && all_reach(l.tip)) best = l.tip;
  }
  return best;
}

void RecurrentCache::grow_log(int n_rows) {
  int n_logged = std::max(n_logged_, kLogged);
  while (n_logged < n_rows) n_logged *= 2;
  if (n_logged == n_logged_) return;
  RecurrentCache old = *this;
  log_ = arena_->allocate({.host_bytes = log_bytes(n_logged)});
  n_logged_ = n_logged;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    for (int p = layers_[l].log_begin; p < layers_[l].end; ++p) {
      const int layer = static_cast<int>(l);
      std::memcpy(input(layer, p), old.input(layer, p),
                  static_cast<std::size_t>(shape_.input_size()) * sizeof(float));
    }
  }
}

// Before a pass at `base` that claims the inputs of n_rows rows, and changes tips: base must be
// within reach without either.
bool RecurrentCache::wants_checkpoint(int base, int n_rows) const {
  if (base == 0) return false;
  int newest = 0;
  for (const Checkpoint& c : checkpoints_) {
    if (c.position == base) return false;
    if (c.position < base) newest = c.position;
  }
  if (base - newest >= n_logged_ / 2) return true;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    if (layers_[l].end < base) continue;  // not of this pass
    const auto kept = kept_source(static_cast<int>(l), base);
    if (!kept || kept->position < base + n_rows - n_logged_) return true;
  }
  return false;
}

// Drops checkpoints beyond kMaxKept, but none by which a layer gets to `base`, where a pass begins.
// The two newest stay; of the others that goes which leaves the smallest gap for its age, unless
// one was never completed.
void RecurrentCache::thin_out(int base) {
  const auto is_needed = [&](const Checkpoint& c) {
    if (c.position >= base) return true;
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      const int layer = static_cast<int>(l);
      const int n = std::min(base, layers_[l].end);
      if (kept_source(layer, n) && !kept_source(layer, n, &c)) return true;
    }
    return false;
  };
  while (checkpoints_.size() > kMaxKept) {
    auto found = checkpoints_.end();
    double smallest = 0;
    for (auto c = checkpoints_.begin(); c != checkpoints_.end(); ++c) {
      const bool complete = std::find(c->has.begin(), c->has.end(), false) == c->has.end();
      if (is_needed(*c) || (complete && c + 2 >= checkpoints_.end())) continue;
      const int before = c != checkpoints_.begin() ? (c - 1)->position : 0;
      const int after = c + 1 != checkpoints_.end() ? (c + 1)->position : base;
      const double gap = complete ? (after - before) / (1.0 + base - c->position) : -1.0;
      if (found != checkpoints_.end() && gap >= smallest) continue;
      found = c;
      smallest = gap;
    }
    if (found == checkpoints_.end()) return;
    checkpoints_.erase(found);
  }
}

void RecurrentCache::reserve(int base, int n_rows, bool revocable) {
  const KvPageSize size{.host_bytes = states_bytes()};
  KvPage tips = tips_ != nullptr ? tips_ : arena_->allocate(size);
  grow_log(revocable ? n_rows : kLogged);
  if (wants_checkpoint(base, n_rows)) {
    const auto at = std::lower_bound(checkpoints_.begin(), checkpoints_.end(), base,
                                     [](const Checkpoint& c, int p) { return c.position < p; });
    checkpoints_.insert(at, {.position = base,
                             .states = arena_->allocate(size),
                             .has = std::vector<bool>(layers_.size())});
    thin_out(base);
  }
  tips_ = std::move(tips);
}

RecurrentCache::Tip RecurrentCache::begin(int layer, int base) {
  Layer& l = layers_[index(layer)];
  if (l.end < base) {
    throw_invalid("layer state of position " + std::to_string(base) + " is needed, but only " +
                  std::to_string(l.end) +
                  " positions went through that layer; truncate the cache to those");
  }
  const auto from = source(layer, base);
  SPECDEC_CHECK(from.has_value());
  float* const tip = state_of(tips_, layer);
  if (from->state == nullptr) {
    std::memset(tip, 0, static_cast<std::size_t>(shape_.state_stride()) * sizeof(float));
  } else if (from->state != tip) {
    std::memcpy(tip, from->state, static_cast<std::size_t>(shape_.state_stride()) * sizeof(float));
  }
  l.tip = -1;  // until somebody says where it is
  return {.state = tip, .from = from->position};
}

int RecurrentCache::claim(int layer, int base, int n_rows) {
  for (Checkpoint& c : checkpoints_) {
    if (c.position != base || c.has[index(layer)]) continue;
    std::memcpy(state_of(c.states, layer), state_of(tips_, layer),
                static_cast<std::size_t>(shape_.state_stride()) * sizeof(float));
    c.has[index(layer)] = true;
  }
  Layer& l = layers_[index(layer)];
  l.end = base;
  l.log_begin = std::max(std::min(l.log_begin, base), base + n_rows - n_logged_);
  return std::max(base, base + n_rows - n_logged_);
}

void RecurrentCache::note(int layer, int base, int n_rows, bool tree) {
  Layer& l = layers_[index(layer)];
  l.tip = tree ? base : base + n_rows;
  l.end = base + n_rows;
}

void RecurrentCache::truncate(int n) {
  SPECDEC_CHECK(all_reach(n));
  while (!checkpoints_.empty() && checkpoints_.back().position > n) checkpoints_.pop_back();
  for (Layer& l : layers_) {
    if (l.tip > n) l.tip = -1;
    l.end = std::min(l.end, n);
    l.log_begin = std::min(l.log_begin, l.end);
  }
  if (n > 0) return;
  for (Layer& l : layers_) l = {.tip = -1};
}

bool RecurrentCache::has_logged(int base) const {
  return std::all_of(layers_.begin(), layers_.end(),
                     [&](const Layer& l) { return l.log_begin <= base; });
}

void RecurrentCache::keep_path(int base, std::span<const std::int32_t> rows) {
  const std::size_t n_bytes = static_cast<std::size_t>(shape_.input_size()) * sizeof(float);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const int layer = static_cast<int>(l);
    for (std::size_t i = 0; i < rows.size(); ++i) {  // ascending: a destination is never a source
      const int to = static_cast<int>(i);
      if (rows[i] != to)
        std::memcpy(input(layer, base + to), input(layer, base + rows[i]), n_bytes);
    }
    if (layers_[l].tip > base) layers_[l].tip = -1;
  }
}

RecurrentCache RecurrentCache::fork() const {
  RecurrentCache out = *this;  // complete checkpoints do not change any more and are shared
  const auto copy = [&](KvPage& page, std::size_t n_bytes) {
    if (page == nullptr) return;
    const KvPage from = page;
    page = arena_->allocate({.host_bytes = n_bytes});
    std::memcpy(page->data(), from->data(), n_bytes);
  };
  copy(out.tips_, states_bytes());
  copy(out.log_, log_bytes(n_logged_));
  for (Checkpoint& c : out.checkpoints_) {
    if (std::find(c.has.begin(), c.has.end(), false) != c.has.end()) copy(c.states, states_bytes());
  }
  return out;
}

}  // namespace specdec
