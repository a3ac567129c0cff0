// The memory of every KV cache of a process: reference-counted pages of kKvChunk positions.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "backend/device_backend.h"
#include "base/aligned_buffer.h"

namespace specdec {

struct KvArenaOptions {
  std::size_t budget_bytes = 0;  // 0: no limit
  // Fills new pages and rolled-back positions with NaN, so that tests see whether anything reads
  // them.
  bool poison = false;
  std::shared_ptr<DeviceBackend> device;  // where device parts of pages are; null: there are none
};

// What a page consists of: the layers on the CPU, and behind them those on the device.
struct KvPageSize {
  std::size_t host_bytes = 0;
  std::size_t device_bytes = 0;
};

struct KvArenaStats {
  // In the machine's memory:
  std::size_t used_bytes = 0;  // pages that a cache holds
  std::size_t free_bytes = 0;  // pages kept for reuse
  std::size_t peak_bytes = 0;  // most of used + free so far
  std::size_t budget_bytes = 0;
  std::size_t n_used_pages = 0;
  std::size_t n_free_pages = 0;
  std::size_t device_bytes = 0;  // device parts of the pages that a cache holds
};

class KvArena;

// One page's memory; goes back to its arena, which it keeps alive.
class KvPageMemory {
 public:
  explicit KvPageMemory(std::shared_ptr<KvArena> arena) : arena_(std::move(arena)) {}
  ~KvPageMemory();
  KvPageMemory(const KvPageMemory&) = delete;
  KvPageMemory& operator=(const KvPageMemory&) = delete;
  [[nodiscard]] std::byte* data() const noexcept { return buffer_.data(); }
  [[nodiscard]] std::byte* device_data() const noexcept { return device_.data(); }

 private:
  friend class KvArena;
  std::shared_ptr<KvArena> arena_;
  AlignedBuffer buffer_;
  DeviceMemory device_;  // goes back to the device at once: others may be waiting for it
  bool taken_ = false;   // counted by the arena
};

// Shared by the caches whose histories agree on the page's positions.
using KvPage = std::shared_ptr<KvPageMemory>;

// Thread-safe.
class KvArena : public std::enable_shared_from_this<KvArena> {
 public:
  [[nodiscard]] static std::shared_ptr<KvArena> create(const KvArenaOptions& options = {});
  KvArena(const KvArena&) = delete;
  KvArena& operator=(const KvArena&) = delete;

  // Throws Error(kResource) when the budget, the system's memory or what is reserved on the device
  // does not allow another page.
  [[nodiscard]] KvPage allocate(const KvPageSize& size);
  [[nodiscard]] const std::shared_ptr<DeviceBackend>& device() const noexcept {
    return options_.device;
  }
  [[nodiscard]] KvArenaStats stats() const;
  [[nodiscard]] bool poison() const noexcept { return options_.poison; }
  // Gives the pages kept for reuse back to the system.
  void release_free() noexcept;

 private:
  friend class KvPageMemory;
  explicit KvArena(const KvArenaOptions& options) : options_(options) {}
  [[nodiscard]] AlignedBuffer take(std::size_t page_bytes);
  void recycle(AlignedBuffer page, std::size_t device_bytes) noexcept;
  void make_room(std::size_t page_bytes);  // with mutex_ held

  const KvArenaOptions options_;
  mutable std::mutex mutex_;
  std::map<std::size_t, std::vector<AlignedBuffer>> free_;  // by page size
  KvArenaStats stats_;
};

}  // namespace specdec
