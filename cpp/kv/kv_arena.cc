#include "kv/kv_arena.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "base/error.h"

namespace specdec {

std::shared_ptr<KvArena> KvArena::create(const KvArenaOptions& options) {
  return std::shared_ptr<KvArena>(new KvArena(options));
}

KvPageMemory::~KvPageMemory() {
  if (taken_) arena_->recycle(std::move(buffer_), device_.size());
}

KvPage KvArena::allocate(const KvPageSize& size) {
  auto page = std::make_shared<KvPageMemory>(shared_from_this());
  page->buffer_ = take(size.host_bytes);
  page->taken_ = true;
  if (options_.poison && size.host_bytes > 0) std::memset(page->data(), 0xFF, size.host_bytes);
  if (size.device_bytes > 0) {
    SPECDEC_CHECK(options_.device != nullptr);
    page->device_ = options_.device->allocate(size.device_bytes, "a page of the KV cache");
    if (options_.poison) options_.device->fill(page->device_data(), 0xFF, size.device_bytes);
    const std::lock_guard lock(mutex_);
    stats_.device_bytes += size.device_bytes;
  }
  return page;
}

AlignedBuffer KvArena::take(std::size_t page_bytes) {
  const std::lock_guard lock(mutex_);
  AlignedBuffer memory;
  if (page_bytes == 0) {  // all layers are on the device
    ++stats_.n_used_pages;
    return memory;
  }
  const auto found = free_.find(page_bytes);
  if (found != free_.end() && !found->second.empty()) {
    memory = std::move(found->second.back());
    found->second.pop_back();
    stats_.free_bytes -= page_bytes;
    --stats_.n_free_pages;
  } else {
    make_room(page_bytes);
    memory = AlignedBuffer(page_bytes);
  }
  stats_.used_bytes += page_bytes;
  ++stats_.n_used_pages;
  stats_.peak_bytes = std::max(stats_.peak_bytes, stats_.used_bytes + stats_.free_bytes);
  return memory;
}

void KvArena::make_room(std::size_t page_bytes) {
  const std::size_t budget = options_.budget_bytes;
  if (budget == 0) return;
  const auto fits = [&] {
    const std::size_t held = stats_.used_bytes + stats_.free_bytes;
    return page_bytes <= budget && held <= budget - page_bytes;
  };
  for (auto& [size, pages] : free_) {  // pages of another size
    while (!fits() && !pages.empty()) {
      pages.pop_back();
      stats_.free_bytes -= size;
      --stats_.n_free_pages;
    }
  }
  if (fits()) return;
  throw Error(ErrorCode::kResource,
              "the KV cache needs another page of " + std::to_string(page_bytes) + " bytes, but " +
                  std::to_string(stats_.used_bytes) + " of its budget of " +
                  std::to_string(budget) +
                  " bytes are in use; use a shorter context, a smaller KV type or a larger budget");
}

void KvArena::recycle(AlignedBuffer page, std::size_t device_bytes) noexcept {
  const std::lock_guard lock(mutex_);
  const std::size_t n_bytes = page.size();
  stats_.device_bytes -= device_bytes;
  stats_.used_bytes -= n_bytes;
  --stats_.n_used_pages;
  if (n_bytes == 0) return;
  try {
    free_[n_bytes].push_back(std::move(page));
  } catch (...) {
    return;  // no memory for the list: `page` frees itself
  }
  stats_.free_bytes += n_bytes;
  ++stats_.n_free_pages;
}

KvArenaStats KvArena::stats() const {
  const std::lock_guard lock(mutex_);
  KvArenaStats out = stats_;
  out.budget_bytes = options_.budget_bytes;
  return out;
}

void KvArena::release_free() noexcept {
  const std::lock_guard lock(mutex_);
  free_.clear();
  stats_.free_bytes = 0;
  stats_.n_free_pages = 0;
}

}  // namespace specdec
