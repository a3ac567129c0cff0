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
  const auto page = per_layer ? checked_mul(*per_layer, index(shape.n_layers)) : std::nullopt;
  if (!page || *page > (std::uint64_t{1} << 46)) {
    throw Error(ErrorCode::kResource, "one page of this KV cache would be larger than 64 TiB");
  }
}

}  // namespace

KvCache::KvCache(std::shared_ptr<KvArena> arena, const KvShape& shape, int n_ctx)
    : arena_(std::move(arena)), shape_(shape), n_ctx_(n_ctx) {
  SPECDEC_CHECK(arena_ != nullptr);
  check_shape(shape, n_ctx);
  if (shape.n_device_layers > 0 && arena_->device() == nullptr)
    throw_invalid("a KV cache with layers on a device needs an arena of that device");
  views_.resize(index(shape.n_host_layers()));
  if (shape.n_recurrent_layers > 0)
    recurrent_.emplace(arena_, shape.recurrent, shape.n_recurrent_layers);
}

void KvCache::set_page(std::size_t at, KvPage page) {
  for (std::size_t layer = 0; layer < views_.size(); ++layer) {
    views_[layer][at] = page->data() + layer * shape_.layout.layer_bytes();
  }
  if (shape_.n_device_layers > 0) device_pages_[at] = page->device_data();
  pages_[at] = std::move(page);
}

void KvCache::copy_prefix(const KvPageMemory& from, const KvPageMemory& to, int n_positions) const {
  if (shape_.n_host_layers() > 0)
    copy_page_prefix(shape_.layout, shape_.n_host_layers(), from.data(), to.data(), n_positions);
  if (shape_.n_device_layers > 0) {
    arena_->device()->copy_kv_prefix(shape_.layout, shape_.n_device_layers, from.device_data(),
                                     to.device_data(), n_positions);
  }
}

// Pages [first, end) exist and belong to nobody else afterwards; on an exception nothing has
// changed.
void KvCache::make_writable(std::size_t first, std::size_t end) {
  std::vector<std::pair<std::size_t, KvPage>> fresh;
  for (std::size_t i = first; i < end; ++i) {
    if (i < pages_.size() && owned_alone(pages_[i])) continue;
    fresh.emplace_back(i, arena_->allocate(shape_.page_size()));
  }
  if (fresh.empty()) return;
  const std::size_t n_pages = std::max(end, pages_.size());
  pages_.reserve(n_pages);
  for (auto& view : views_) view.reserve(n_pages);
  if (shape_.n_device_layers > 0) device_pages_.reserve(n_pages);
  pages_.resize(n_pages);
  for (auto& view : views_) view.resize(n_pages);
  if (shape_.n_device_layers > 0) device_pages_.resize(n_pages);
  for (auto& [i, page] : fresh) {
    const int n_used = std::clamp(length_ - static_cast<int>(i) * kKvChunk, 0, kKvChunk);
    if (pages_[i] != nullptr && n_used > 0) copy_prefix(*pages_[i], *page, n_used);
    set_page(i, std::move(page));
  }
}

void KvCache::reserve(int n_rows, int n_present, bool revocable) {
  if (n_rows < 0) throw_invalid("cannot reserve " + std::to_string(n_rows) + " rows");
  if (n_rows > n_ctx_ - length_) {
    throw Error(ErrorCode::kContextFull,
                "the context is full: it holds " + std::to_string(length_) + " of " +
                    std::to_string(n_ctx_) + " positions (n_ctx) and " + std::to_string(n_rows) +
                    " more are needed; use a larger n_ctx");
  }
  if (n_rows > 0) make_writable(index(length_) / kKvChunk, pages_for(length_ + n_rows));
  if (recurrent_) recurrent_->reserve(length_ - n_present, n_rows + n_present, revocable);
}

void KvCache::advance(int n_rows) {
  SPECDEC_CHECK(n_rows >= 0 && n_rows <= n_ctx_ - length_ &&
                pages_for(length_ + n_rows) <= pages_.size());
  length_ += n_rows;
}

void KvCache::release_from(std::size_t page) {
  if (page >= pages_.size()) return;
  pages_.resize(page);
  for (auto& view : views_) view.resize(page);
  if (!device_pages_.empty()) device_pages_.resize(page);
}

void KvCache::truncate(int n) {
  if (n < 0 || n > length_) {
    throw_invalid("cannot truncate a cache of " + std::to_string(length_) + " positions to " +
                  std::to_string(n));
  }
  if (reachable(n) != n) {
    throw_invalid("a cache of " + std::to_string(length_) +
                  " positions with recurrent layers cannot be truncated to " + std::to_string(n) +
                  ", only to " + std::to_string(reachable(n)));
  }
  if (recurrent_) recurrent_->truncate(n);
  const std::size_t n_pages = pages_for(n);
  release_from(n_pages);
  length_ = n;
  if (arena_->poison() && n % kKvChunk != 0 && shape_.n_host_layers() > 0 &&
      owned_alone(pages_.back())) {
    poison_positions(shape_.layout, shape_.n_host_layers(), pages_.back()->data(), n % kKvChunk,
                     kKvChunk);
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
  if (first < n_kept && recurrent_ && !recurrent_->has_logged(base)) {
    throw_invalid("the rows behind position " + std::to_string(base) +
                  " were fed as ones that stay; recurrent layers cannot drop some of them");
  }
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
  if (recurrent_ && first < n_kept) recurrent_->keep_path(base, rows);
  truncate(base + n_kept);
}

KvCache KvCache::fork() const {
  KvCache out(arena_, shape_, n_ctx_);
  const std::size_t n_full = index(length_) / kKvChunk;
  out.pages_.assign(pages_.begin(), pages_.begin() + static_cast<std::ptrdiff_t>(n_full));
  for (std::size_t layer = 0; layer < views_.size(); ++layer) {
    out.views_[layer].assign(views_[layer].begin(),
                             views_[layer].begin() + static_cast<std::ptrdiff_t>(n_full));
  }
  if (shape_.n_device_layers > 0) {
    out.device_pages_.assign(device_pages_.begin(),
                             device_pages_.begin() + static_cast<std::ptrdiff_t>(n_full));
  }
  const int n_rest = length_ % kKvChunk;
  if (n_rest > 0) {
    out.make_writable(n_full, n_full + 1);
    copy_prefix(*pages_[n_full], *out.pages_[n_full], n_rest);
  }
  if (recurrent_) out.recurrent_ = recurrent_->fork();
  out.length_ = length_;
  return out;
}

KvLayerView KvCache::layer_view(int layer) const {
  SPECDEC_CHECK(layer >= 0 && layer < shape_.n_host_layers());
  return {.layout = shape_.layout, .pages = views_[index(layer)].data()};
}

}  // namespace specdec
