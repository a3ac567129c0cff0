#include "kv/kv_store.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "base/aligned_buffer.h"
#include "base/checked.h"
#include "base/error.h"
#include "kv/page_ops.h"

namespace specdec {
namespace {

constexpr int kMost = 1 << 16;  // layers, heads, dimensions
constexpr int kMostPositions = 1 << 30;
constexpr std::size_t kMostCheckpoints = 1024;

std::size_t index(int n) { return static_cast<std::size_t>(n); }

int n_used(int length, std::size_t page) {
  return std::min(length - static_cast<int>(page) * kKvChunk, kKvChunk);
}

std::size_t pages_for(int n_positions) { return (index(n_positions) + kKvChunk - 1) / kKvChunk; }

// Floats of a state without padding.
std::int64_t state_size(const RecurrentShape& shape) {
  return shape.matrices_size() + (shape.n_taps - 1) * shape.n_channels();
}

std::span<const std::byte> as_floats(const float* data, std::int64_t n) {
  return {reinterpret_cast<const std::byte*>(data), static_cast<std::size_t>(n) * sizeof(float)};
}

bool in_range(int value, int low, int high) { return value >= low && value <= high; }

std::string shape_problem(const KvShape& shape) {
  const KvLayout& layout = shape.layout;
  if (!in_range(shape.n_layers, 1, kMost) || !in_range(layout.n_kv_heads, 1, kMost) ||
      !in_range(layout.head_dim, 1, kMost) || shape.n_device_layers != 0)
    return "a cache of " + std::to_string(shape.n_layers) + " layers of " +
           std::to_string(layout.n_kv_heads) + " heads of " + std::to_string(layout.head_dim) +
           " dimensions is not possible";
  if (layout.type == KvType::kQ8_0 && layout.head_dim % 32 != 0)
    return "q8_0 needs a multiple of 32 dimensions, found " + std::to_string(layout.head_dim);
  if (!shape.windowed.empty() && shape.windowed.size() != index(shape.n_layers))
    return "windows of " + std::to_string(shape.windowed.size()) + " layers, expected " +
           std::to_string(shape.n_layers);
  if (!in_range(shape.window, shape.forgets() ? 1 : 0, kMostPositions))
    return "a window of " + std::to_string(shape.window) + " positions";
  if (!in_range(shape.n_recurrent_layers, 0, kMost)) return "too many recurrent layers";
  if (shape.n_recurrent_layers == 0) return {};
  const RecurrentShape& recurrent = shape.recurrent;
  const bool possible =
      in_range(recurrent.n_heads, 1, 1 << 12) && in_range(recurrent.n_key_heads, 1, 1 << 12) &&
      in_range(recurrent.key_dim, 1, 1 << 12) && in_range(recurrent.value_dim, 1, 1 << 12) &&
      in_range(recurrent.n_taps, 1, 1 << 8);
  return possible ? std::string() : "recurrent layers of impossible sizes";
}

std::string states_problem(const KvRecord& record) {
  const auto n = index(record.shape.n_recurrent_layers);
  if (record.states.size() != n) return "states of some recurrent layers are missing";
  if (record.checkpoints.size() > kMostCheckpoints) return "too many earlier states";
  int before = 0;
  for (const KvRecord::Checkpoint& checkpoint : record.checkpoints) {
    if (checkpoint.has.size() != n || checkpoint.position <= before ||
        checkpoint.position > record.length)
      return "an earlier state of position " + std::to_string(checkpoint.position) +
             " is out of place";
    before = checkpoint.position;
  }
  for (std::size_t layer = 0; layer < n; ++layer) {
    const KvRecord::State& state = record.states[layer];
    if (!in_range(state.tip, -1, record.length) || !in_range(state.log_begin, 0, record.length))
      return "a state of position " + std::to_string(state.tip) + " is out of place";
    const auto leads_there = [&](int position) {
      return position == record.length || position >= state.log_begin;
    };
    bool reached = leads_there(0) || (state.tip >= 0 && leads_there(state.tip));
    for (const KvRecord::Checkpoint& checkpoint : record.checkpoints)
      reached = reached || (checkpoint.has[layer] && leads_there(checkpoint.position));
    if (!reached)
      return "no state of recurrent layer " + std::to_string(layer) + " leads to the end";
  }
  return {};
}

// Bytes of the blocks; nothing when a sum does not fit.
std::optional<std::vector<std::uint64_t>> block_bytes(const KvRecord& record) {
  const KvShape& shape = record.shape;
  std::vector<std::uint64_t> blocks;
  bool fits = true;
  const auto add = [&](std::uint64_t n, std::uint64_t of_each) {
    const auto size = checked_mul(n, of_each);
    fits = fits && size.has_value();
    if (size.value_or(0) > 0) blocks.push_back(*size);
  };
  const auto n_windowed = index(shape.n_windowed());
  for (std::size_t page = 0; page < pages_for(record.length); ++page) {
    const std::uint64_t layer = packed_bytes(shape.layout, n_used(record.length, page));
    add(index(shape.n_layers) - n_windowed, layer);
    if (page >= index(record.n_forgotten)) add(n_windowed, layer);
  }
  if (shape.n_recurrent_layers == 0) return fits ? std::optional(blocks) : std::nullopt;
  const auto state_bytes = static_cast<std::uint64_t>(state_size(shape.recurrent)) * sizeof(float);
  std::uint64_t n_tips = 0, n_logged = 0;
  for (const KvRecord::State& state : record.states) {
    n_tips += state.tip >= 0 ? 1 : 0;
    n_logged += static_cast<std::uint64_t>(record.length - state.log_begin);
  }
  add(n_tips, state_bytes);
  add(n_logged, static_cast<std::uint64_t>(shape.recurrent.input_size()) * sizeof(float));
  for (const KvRecord::Checkpoint& checkpoint : record.checkpoints)
    add(static_cast<std::uint64_t>(std::count(checkpoint.has.begin(), checkpoint.has.end(), true)),
        state_bytes);
  return fits ? std::optional(blocks) : std::nullopt;
}

}  // namespace

std::string kv_record_problem(const KvRecord& record) {
  if (!in_range(record.length, 1, kMostPositions))
    return "a cache of " + std::to_string(record.length) + " positions";
  if (const std::string problem = shape_problem(record.shape); !problem.empty()) return problem;
  const bool forgets = record.shape.forgets();
  const std::int64_t seen_from = std::int64_t{record.n_forgotten} * kKvChunk + record.shape.window;
  if (!in_range(record.n_forgotten, 0, forgets ? record.length / kKvChunk : 0) ||
      (record.n_forgotten > 0 && seen_from - 1 > record.length))
    return std::to_string(record.n_forgotten) + " pages cannot be forgotten";
  if (const std::string problem = states_problem(record); !problem.empty()) return problem;
  const auto blocks = block_bytes(record);
  std::optional<std::uint64_t> total = blocks ? std::optional<std::uint64_t>(0) : std::nullopt;
  for (std::size_t i = 0; total && i < blocks->size(); ++i)
    total = checked_add(*total, (*blocks)[i]);
  return total ? std::string() : "a cache of more than 2^64 bytes";
}

std::vector<std::uint64_t> kv_block_bytes(const KvRecord& record) {
  const auto blocks = block_bytes(record);
  SPECDEC_CHECK(blocks.has_value());
  return *blocks;
}

KvRecord KvStore::record(const KvCache& cache) {
  if (cache.shape_.n_device_layers > 0)
    throw Error(ErrorCode::kUnsupported,
                "keys and values of " + std::to_string(cache.shape_.n_device_layers) +
                    " layers are in the memory of a GPU, from where they cannot be kept in a file; "
                    "load the model with device 'cpu'");
  KvRecord record{.shape = cache.shape_,
                  .length = cache.length_,
                  .n_forgotten = 0,
                  .states = {},
                  .checkpoints = {}};
  if (cache.shape_.forgets()) {
    const auto& pages = cache.groups_.back().pages;
    const auto first = std::find_if(pages.begin(), pages.end(),
                                    [](const KvPage& page) { return page != nullptr; });
    record.n_forgotten = static_cast<int>(first - pages.begin());
  }
  if (!cache.recurrent_) return record;
  for (const RecurrentCache::Layer& layer : cache.recurrent_->layers_) {
    SPECDEC_CHECK(layer.end == cache.length_);
    record.states.push_back({.tip = layer.tip, .log_begin = layer.log_begin});
  }
  for (const RecurrentCache::Checkpoint& checkpoint : cache.recurrent_->checkpoints_)
    record.checkpoints.push_back({.position = checkpoint.position, .has = checkpoint.has});
  return record;
}

void KvStore::write(const KvCache& cache, const Put& put, const std::function<void()>& end_block) {
  write_pages(cache, put, end_block);
  if (cache.recurrent_) write_states(*cache.recurrent_, cache.length_, put, end_block);
}

void KvStore::write_pages(const KvCache& cache, const Put& put,
                          const std::function<void()>& end_block) {
  const KvLayout& layout = cache.shape_.layout;
  AlignedBuffer packed;
  for (std::size_t page = 0; page < pages_for(cache.length_); ++page) {
    const int n_positions = n_used(cache.length_, page);
    const std::size_t n_bytes = packed_bytes(layout, n_positions);
    packed.require(n_bytes);
    for (const KvCache::Group& group : cache.groups_) {
      if (group.layers.empty() || group.pages[page] == nullptr) continue;
      for (std::size_t layer = 0; layer < group.layers.size(); ++layer) {
        pack_layer(layout, group.pages[page]->data() + layer * layout.layer_bytes(), n_positions,
                   packed.data());
        put({packed.data(), n_bytes});
      }
      end_block();
    }
  }
}

void KvStore::write_states(const RecurrentCache& cache, int length, const Put& put,
                           const std::function<void()>& end_block) {
  const RecurrentShape& shape = cache.shape_;
  bool any = false;
  const auto end = [&] {
    if (std::exchange(any, false)) end_block();
  };
  const auto put_floats = [&](const float* data, std::int64_t n) {
    put(as_floats(data, n));
    any = true;
  };
  const auto n_layers = static_cast<int>(cache.layers_.size());
  for (int layer = 0; layer < n_layers; ++layer) {
    if (cache.layers_[index(layer)].tip >= 0)
      put_floats(cache.state_of(cache.tips_, layer), state_size(shape));
  }
  end();
  for (int layer = 0; layer < n_layers; ++layer) {
    for (int p = cache.layers_[index(layer)].log_begin; p < length; ++p)
      put_floats(cache.input(layer, p), shape.input_size());
  }
  end();
  for (const RecurrentCache::Checkpoint& checkpoint : cache.checkpoints_) {
    for (int layer = 0; layer < n_layers; ++layer) {
      if (checkpoint.has[index(layer)])
        put_floats(cache.state_of(checkpoint.states, layer), state_size(shape));
    }
    end();
  }
}

KvCache KvStore::read(std::shared_ptr<KvArena> arena, const KvRecord& record, int n_ctx,
                      const Next& next) {
  SPECDEC_CHECK(record.length <= n_ctx && kv_record_problem(record).empty());
  KvCache cache(std::move(arena), record.shape, n_ctx);
  read_pages(cache, record, next);
  if (cache.recurrent_) read_states(*cache.recurrent_, record, next);
  return cache;
}

void KvStore::read_pages(KvCache& cache, const KvRecord& record, const Next& next) {
  const KvLayout& layout = record.shape.layout;
  const std::size_t n_pages = pages_for(record.length);
  for (KvCache::Group& group : cache.groups_) group.pages.resize(n_pages);
  for (auto& view : cache.views_) view.resize(n_pages);
  for (std::size_t page = 0; page < n_pages; ++page) {
    const int n_positions = n_used(record.length, page);
    const std::size_t n_bytes = packed_bytes(layout, n_positions);
    for (KvCache::Group& group : cache.groups_) {
      const bool windowed = record.shape.forgets() && &group == &cache.groups_.back();
      if (windowed && page < index(record.n_forgotten)) continue;
      cache.set_page(group, page, cache.arena_->allocate(group.page_size));
      if (group.layers.empty()) continue;
      const std::span<const std::byte> block = next(group.layers.size() * n_bytes);
      std::byte* const to = group.pages[page]->data();
      for (std::size_t layer = 0; layer < group.layers.size(); ++layer)
        unpack_layer(layout, block.data() + layer * n_bytes, n_positions,
                     to + layer * layout.layer_bytes());
      if (cache.arena_->poison() && n_positions < kKvChunk)
        poison_positions(layout, static_cast<int>(group.layers.size()), to, n_positions, kKvChunk);
    }
  }
  cache.length_ = record.length;
  if (record.n_forgotten > 0)
    cache.lowest_ = record.n_forgotten * kKvChunk + record.shape.window - 1;
}

void KvStore::read_states(RecurrentCache& cache, const KvRecord& record, const Next& next) {
  const std::int64_t n_state = state_size(cache.shape_);
  const std::int64_t n_input = cache.shape_.input_size();
  const auto n_layers = static_cast<int>(record.states.size());
  std::span<const std::byte> block;
  const auto begin = [&](std::int64_t n, std::int64_t of_each) {
    if (n > 0) block = next(static_cast<std::uint64_t>(n * of_each) * sizeof(float));
  };
  const auto take = [&](float* to, std::int64_t n) {
    const std::size_t n_bytes = static_cast<std::size_t>(n) * sizeof(float);
    std::memcpy(to, block.data(), n_bytes);
    block = block.subspan(n_bytes);
  };
  std::int64_t n_tips = 0, n_inputs = 0;
  int longest = 0;
  for (int layer = 0; layer < n_layers; ++layer) {
    const KvRecord::State& state = record.states[index(layer)];
    const int n_logged = record.length - state.log_begin;
    n_tips += state.tip >= 0 ? 1 : 0;
    n_inputs += n_logged;
    longest = std::max(longest, n_logged);
    cache.layers_[index(layer)] = {
        .tip = state.tip, .log_begin = state.log_begin, .end = record.length};
  }
  const KvPageSize size{.host_bytes = cache.states_bytes()};
  cache.tips_ = cache.arena_->allocate(size);
  begin(n_tips, n_state);
  for (int layer = 0; layer < n_layers; ++layer) {
    if (record.states[index(layer)].tip >= 0) take(cache.state_of(cache.tips_, layer), n_state);
  }
  cache.n_logged_ = RecurrentCache::kLogged;
  while (cache.n_logged_ < longest) cache.n_logged_ *= 2;
  cache.log_ = cache.arena_->allocate({.host_bytes = cache.log_bytes(cache.n_logged_)});
  begin(n_inputs, n_input);
  for (int layer = 0; layer < n_layers; ++layer) {
    for (int p = record.states[index(layer)].log_begin; p < record.length; ++p)
      take(cache.input(layer, p), n_input);
  }
  for (const KvRecord::Checkpoint& from : record.checkpoints) {
    cache.checkpoints_.push_back(
        {.position = from.position, .states = cache.arena_->allocate(size), .has = from.has});
    begin(std::count(from.has.begin(), from.has.end(), true), n_state);
    for (int layer = 0; layer < n_layers; ++layer) {
      if (from.has[index(layer)])
        take(cache.state_of(cache.checkpoints_.back().states, layer), n_state);
    }
  }
}

}  // namespace specdec
