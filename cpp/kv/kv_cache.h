// Keys and values of one sequence. Slots [0, length) are the committed positions in order; the rows
// of a forward go to the slots behind them and count only after advance().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backend/kv_layout.h"
#include "backend/recurrent_layout.h"
#include "kv/kv_arena.h"
#include "kv/recurrent_cache.h"

namespace specdec {

struct KvShape {
  int n_layers = 0;  // with keys and values
  KvLayout layout;
  int n_device_layers = 0;  // the last so many are in the memory of the arena's device
  // Layers of which rows see the last `window` positions only; empty: none. What lies further back
  // can be forgotten, unless layers are on a device.
  std::vector<bool> windowed = {};
  int window = 0;
  int n_recurrent_layers = 0;
  RecurrentShape recurrent = {};  // of those

  [[nodiscard]] int n_host_layers() const { return n_layers - n_device_layers; }
  [[nodiscard]] bool forgets() const { return n_windowed() > 0; }
  // Whose positions are in pages of their own.
  [[nodiscard]] int n_windowed() const;
  // Of the pages of all layers, or of those that see everything.
  [[nodiscard]] KvPageSize page_size() const {
    return {.host_bytes =
                layout.layer_bytes() * static_cast<std::size_t>(n_host_layers() - n_windowed()),
            .device_bytes = layout.layer_bytes() * static_cast<std::size_t>(n_device_layers)};
  }
  [[nodiscard]] KvPageSize windowed_page_size() const {
    return {.host_bytes = layout.layer_bytes() * static_cast<std::size_t>(n_windowed())};
  }
  // Most that a cache of n_ctx positions holds in the machine's memory while rows come in batches
  // of up to n_rows.
  [[nodiscard]] std::uint64_t host_bytes(int n_ctx, int n_rows) const;
};

// Not thread-safe; caches that share pages may be used by different threads.
class KvCache {
 public:
  // Throws Error(kInvalidArgument) for an impossible shape or n_ctx. Allocates nothing yet.
  KvCache(std::shared_ptr<KvArena> arena, const KvShape& shape, int n_ctx);
  KvCache(KvCache&&) = default;
  KvCache& operator=(KvCache&&) = default;

  [[nodiscard]] int length() const noexcept { return length_; }
  [[nodiscard]] int n_ctx() const noexcept { return n_ctx_; }
  [[nodiscard]] const KvShape& shape() const noexcept { return shape_; }
  [[nodiscard]] const std::shared_ptr<KvArena>& arena() const noexcept { return arena_; }
  // Bytes of the pages and states it holds, shared ones included.
  [[nodiscard]] std::size_t n_bytes() const noexcept;

  // Makes slots [length, length + n_rows) writable, for a pass whose first rows are the n_present
  // last positions. `revocable`: some of the rows may be dropped again, which needs memory where
  // there are recurrent layers. Throws Error(kContextFull) or Error(kResource); then nothing has
  // changed.
  void reserve(int n_rows, int n_present = 0, bool revocable = true);
  // The n_rows slots behind the length, reserved and written before, now count.
  void advance(int n_rows);
  // Drops the positions from n on, 0 <= n <= length(), n == reachable(n).
  void truncate(int n);
  // The last position up to n that truncate() can be asked for: n, unless layers with a window have
  // forgotten what it sees, or recurrent ones their states so far back. To get to n, feed what is
  // between again.
  [[nodiscard]] int reachable(int n) const;
  // Gives up what no row sees that follows position length() - kKvSlack, in layers with a window:
  // shorter sequences cannot be gone back to then, but for the empty one.
  void forget();
  // Slots [base, length) hold the rows of the last forward: keeps those of `rows` (ascending) in
  // this order and drops the others. Strong guarantee.
  void keep_path(int base, std::span<const std::int32_t> rows);
  // A second cache with the same content: full pages are shared, the last one is copied as far as
  // it is used.
  [[nodiscard]] KvCache fork() const;

  // Null: the model has no such layers.
  [[nodiscard]] RecurrentCache* recurrent() noexcept { return recurrent_ ? &*recurrent_ : nullptr; }
  // Of a layer on the CPU. Valid until the next change of this cache.
  [[nodiscard]] KvLayerView layer_view(int layer) const;
  // Device parts of the pages: the layers from shape().n_host_layers() on, one after the other.
  [[nodiscard]] std::span<std::byte* const> device_pages() const noexcept { return device_pages_; }

 private:
  friend class KvStore;
  // Layers that share pages: those that see everything, and those with a window.
  struct Group {
    std::vector<int> layers;    // on the CPU
    std::vector<KvPage> pages;  // null: forgotten
    KvPageSize page_size;
  };

  void release_from(std::size_t page);
  void make_writable(std::size_t first_page, std::size_t end_page);
  void set_page(Group& group, std::size_t index, KvPage page);
  void copy_prefix(const Group& group, const KvPageMemory& from, const KvPageMemory& to,
                   int n_positions) const;
  [[nodiscard]] std::size_t n_pages() const noexcept { return groups_.front().pages.size(); }

  std::shared_ptr<KvArena> arena_;
  KvShape shape_;
  int n_ctx_ = 0;
  int length_ = 0;
  int lowest_ = 0;             // what layers with a window can go back to beside 0
  std::vector<Group> groups_;  // one, or two
  std::vector<std::vector<std::byte*>>
      views_;  // [n_host_layers][n_pages] that layer's part of each page; null: forgotten
  std::vector<std::byte*> device_pages_;  // [n_pages], or empty
  std::optional<RecurrentCache> recurrent_;
};

// Positions behind a window that forget() keeps, for drafts that are taken back.
inline constexpr int kKvSlack = kKvChunk;

}  // namespace specdec
