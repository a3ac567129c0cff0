#include "kv/kv_cache.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "kv/page_ops.h"

namespace specdec {
namespace {

std::size_t index(int n) { return static_cast<std::size_t>(n); }
std::size_t pages_for(int n_positions) { return (index(n_positions) + kKvChunk - 1) / kKvChunk; }

// Whether nobody else can read the page any more.
bool owned_alone(const KvPage& page) {
  if (page.use_count() != 1) return false;
  // use_count() orders nothing; taking and dropping a reference puts our writes after the reads of
  // an owner that has gone.
  KvPage reference = page;
  reference.reset();
  return true;
}

void check_shape(const KvShape& shape, int n_ctx) {
  const KvLayout& layout = shape.layout;
  if (n_ctx < 1) throw_invalid("n_ctx is " + std::to_string(n_ctx) + "; expected at least 1");
  if (shape.n_layers < 1 || shape.n_device_layers < 0 || shape.n_device_layers > shape.n_layers ||
      layout.n_kv_heads < 1 || layout.head_dim < 1 || layout.head_dim > 65536) {
    throw_invalid("a KV cache of " + std::to_string(shape.n_layers) + " layers, " +
                  std::to_string(layout.n_kv_heads) + " heads of " +
                  std::to_string(layout.head_dim) + " dimensions is not possible");
  }
  if (layout.type == KvType::kQ8_0 && layout.head_dim % 32 != 0) {
    throw_invalid("a q8_0 KV cache needs head_dim to be a multiple of 32, found " +
                  std::to_string(layout.head_dim) + "; use f16");
  }
  const auto per_layer = checked_mul(layout.head_bytes(), index(layout.n_kv_heads));
  if (shape.forgets() && (shape.window < 1 || index(shape.n_layers) != shape.windowed.size()))
    throw_invalid("a KV cache with windows needs to know which layers have one, and how long");
  const auto page = per_layer ? checked_mul(*per_layer, index(shape.n_layers)) : std::nullopt;
  if (!page || *page > (std::uint64_t{1} << 46)) {
    throw Error(ErrorCode::kResource, "one page of this KV cache would be larger than 64 TiB");
  }
}

}  // namespace

int KvShape::n_windowed() const {
  if (n_device_layers > 0) return 0;
  return static_cast<int>(std::count(windowed.begin(), windowed.end(), true));
}

std::uint64_t KvShape::host_bytes(int n_ctx, int n_rows) const {
  const std::uint64_t seen = pages_for(n_ctx);
  const std::int64_t kept = std::int64_t{window} + kKvSlack + n_rows + 2 * kKvChunk;
  const std::uint64_t in_window =
      kept < n_ctx ? pages_for(static_cast<int>(kept)) : pages_for(n_ctx);
  return seen * page_size().host_bytes + in_window * windowed_page_size().host_bytes;
}

KvCache::KvCache(std::shared_ptr<KvArena> arena, const KvShape& shape, int n_ctx)
    : arena_(std::move(arena)), shape_(shape), n_ctx_(n_ctx) {
  SPECDEC_CHECK(arena_ != nullptr);
  check_shape(shape, n_ctx);
  if (shape.n_device_layers > 0 && arena_->device() == nullptr)
    throw_invalid("a KV cache with layers on a device needs an arena of that device");
  views_.resize(index(shape.n_host_layers()));
  const bool forgets = shape.forgets();
  Group all{.layers = {}, .pages = {}, .page_size = shape.page_size()};
  Group windowed{.layers = {}, .pages = {}, .page_size = shape.windowed_page_size()};
  for (int layer = 0; layer < shape.n_host_layers(); ++layer)
    (forgets && shape.windowed[index(layer)] ? windowed : all).layers.push_back(layer);
  if (!all.layers.empty() || !forgets) groups_.push_back(std::move(all));
  if (forgets) groups_.push_back(std::move(windowed));
}

std::size_t KvCache::n_bytes() const noexcept {
  std::size_t n = 0;
  for (const Group& group : groups_) {
    const auto held =
        static_cast<std::size_t>(std::count_if(group.pages.begin(), group.pages.end(),
                                               [](const KvPage& page) { return page != nullptr; }));
    n += held * (group.page_size.host_bytes + group.page_size.device_bytes);
  }
  return n;
}

void KvCache::set_page(Group& group, std::size_t at, KvPage page) {
  for (std::size_t i = 0; i < group.layers.size(); ++i)
    views_[index(group.layers[i])][at] = page->data() + i * shape_.layout.layer_bytes();
  if (group.page_size.device_bytes > 0) device_pages_[at] = page->device_data();
  group.pages[at] = std::move(page);
}

void KvCache::copy_prefix(const Group& group, const KvPageMemory& from, const KvPageMemory& to,
                          int n_positions) const {
  const auto n_layers = static_cast<int>(group.layers.size());
  if (n_layers > 0) copy_page_prefix(shape_.layout, n_layers, from.data(), to.data(), n_positions);
  if (group.page_size.device_bytes > 0) {
    arena_->device()->copy_kv_prefix(shape_.layout, shape_.n_device_layers, from.device_data(),
                                     to.device_data(), n_positions);
  }
}

// Pages [first, end) exist and belong to nobody else afterwards; on an exception nothing has
// changed.
void KvCache::make_writable(std::size_t first, std::size_t end) {
  struct Fresh {
    Group* group;
    std::size_t at;
    KvPage page;
  };
  std::vector<Fresh> fresh;
  for (Group& group : groups_) {
    for (std::size_t i = first; i < end; ++i) {
      if (i < group.pages.size() && owned_alone(group.pages[i])) continue;
      fresh.push_back({&group, i, arena_->allocate(group.page_size)});
    }
  }
  if (fresh.empty()) return;
  const std::size_t n = std::max(end, n_pages());
  for (Group& group : groups_) group.pages.reserve(n);
  for (auto& view : views_) view.reserve(n);
  if (shape_.n_device_layers > 0) device_pages_.reserve(n);
  for (Group& group : groups_) group.pages.resize(n);
  for (auto& view : views_) view.resize(n);
  if (shape_.n_device_layers > 0) device_pages_.resize(n);
  for (Fresh& f : fresh) {
    const int n_used = std::clamp(length_ - static_cast<int>(f.at) * kKvChunk, 0, kKvChunk);
    const KvPage& old = f.group->pages[f.at];
    if (old != nullptr && n_used > 0) copy_prefix(*f.group, *old, *f.page, n_used);
    set_page(*f.group, f.at, std::move(f.page));
  }
}

void KvCache::forget() {
  const int first_seen = length_ - kKvSlack - shape_.window;
  if (!shape_.forgets() || first_seen < kKvChunk) return;
  Group& group = groups_.back();
  const std::size_t end = index(first_seen) / kKvChunk;  // whole pages before it
  for (std::size_t at = 0; at < end; ++at) {
    group.pages[at] = nullptr;
    for (const int layer : group.layers) views_[index(layer)][at] = nullptr;
  }
  // A row at position n sees those from n - window + 1 on.
  lowest_ = std::max(lowest_, static_cast<int>(end) * kKvChunk + shape_.window - 1);
}

void KvCache::reserve(int n_rows) {
  if (n_rows < 0) throw_invalid("cannot reserve " + std::to_string(n_rows) + " rows");
  if (n_rows > n_ctx_ - length_) {
    throw Error(ErrorCode::kContextFull,
                "the context is full: it holds " + std::to_string(length_) + " of " +
                    std::to_string(n_ctx_) + " positions (n_ctx) and " + std::to_string(n_rows) +
                    " more are needed; use a larger n_ctx");
  }
  if (n_rows > 0) make_writable(index(length_) / kKvChunk, pages_for(length_ + n_rows));
}

void KvCache::advance(int n_rows) {
  SPECDEC_CHECK(n_rows >= 0 && n_rows <= n_ctx_ - length_ &&
                pages_for(length_ + n_rows) <= n_pages());
  length_ += n_rows;
}

void KvCache::release_from(std::size_t page) {
  if (page >= n_pages()) return;
  for (Group& group : groups_) group.pages.resize(page);
  for (auto& view : views_) view.resize(page);
  if (!device_pages_.empty()) device_pages_.resize(page);
}

void KvCache::truncate(int n) {
  if (n < 0 || n > length_) {
    throw_invalid("cannot truncate a cache of " + std::to_string(length_) + " positions to " +
                  std::to_string(n));
  }
  if (n > 0 && n < lowest_) {
    throw_invalid("cannot truncate a cache to " + std::to_string(n) +
                  " positions: what they see before " + std::to_string(lowest_) +
                  " is forgotten in layers with a window");
  }
  const std::size_t n_left = pages_for(n);
  release_from(n_left);
  length_ = n;
  if (n == 0) lowest_ = 0;
  if (!arena_->poison() || n % kKvChunk == 0) return;
  for (const Group& group : groups_) {
    if (group.layers.empty() || !owned_alone(group.pages.back())) continue;
    poison_positions(shape_.layout, static_cast<int>(group.layers.size()),
                     group.pages.back()->data(), n % kKvChunk, kKvChunk);
  }
}

void KvCache::keep_path(int base, std::span<const std::int32_t> rows) {
  bool valid = base >= 0 && base <= length_;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    valid = valid && rows[i] >= 0 && rows[i] < length_ - base && (i == 0 || rows[i] > rows[i - 1]);
  }
  if (!valid) {
    throw_invalid("keep_path needs ascending rows of the " + std::to_string(length_ - base) +
                  " that follow position " + std::to_string(base));
  }
  const int n_kept = static_cast<int>(rows.size());
  int first = 0;  // rows before it stay where they are
  while (first < n_kept && rows[index(first)] == first) ++first;
  if (first < n_kept) {
    make_writable(index(base + first) / kKvChunk, pages_for(base + n_kept));
    for (const auto& view : views_) {
      for (int i = first; i < n_kept; ++i) {  // ascending: a destination is never a later source
        const int src = base + rows[index(i)];
        const int dst = base + i;
        copy_position(shape_.layout, view[index(src / kKvChunk)], src % kKvChunk,
                      view[index(dst / kKvChunk)], dst % kKvChunk);
      }
    }
    for (int i = first; shape_.n_device_layers > 0 && i < n_kept; ++i) {
      const int src = base + rows[index(i)];
      const int dst = base + i;
      arena_->device()->copy_kv_position(shape_.layout, shape_.n_device_layers,
                                         device_pages_[index(src / kKvChunk)], src % kKvChunk,
                                         device_pages_[index(dst / kKvChunk)], dst % kKvChunk);
    }
  }
  truncate(base + n_kept);
}

KvCache KvCache::fork() const {
  KvCache out(arena_, shape_, n_ctx_);
  const std::size_t n_full = index(length_) / kKvChunk;
  const auto full = [n_full](const auto& all) {
    return std::pair(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(n_full));
  };
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const auto [begin, end] = full(groups_[g].pages);
    out.groups_[g].pages.assign(begin, end);
  }
  for (std::size_t layer = 0; layer < views_.size(); ++layer) {
    const auto [begin, end] = full(views_[layer]);
    out.views_[layer].assign(begin, end);
  }
  if (shape_.n_device_layers > 0) {
    const auto [begin, end] = full(device_pages_);
    out.device_pages_.assign(begin, end);
  }
  const int n_rest = length_ % kKvChunk;
  if (n_rest > 0) {
    out.make_writable(n_full, n_full + 1);
    for (std::size_t g = 0; g < groups_.size(); ++g)
      copy_prefix(groups_[g], *groups_[g].pages[n_full], *out.groups_[g].pages[n_full], n_rest);
  }
  out.length_ = length_;
  out.lowest_ = lowest_;
  return out;
}

KvLayerView KvCache::layer_view(int layer) const {
  SPECDEC_CHECK(layer >= 0 && layer < shape_.n_host_layers());
  return {.layout = shape_.layout, .pages = views_[index(layer)].data()};
}

}  // namespace specdec
