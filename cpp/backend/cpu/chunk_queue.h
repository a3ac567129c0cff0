// Deals the chunks of one operation out to its threads: each has a range of its own, which it reads
// from front to back so that the hardware's prefetchers keep up (a jump every 64 KB costs a sixth
// of the memory's speed), and helps the others when it is done.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

namespace specdec {

class ChunkQueue {
 public:
  ChunkQueue(std::int64_t n_chunks, int n_threads)
      : n_threads_(n_threads),
        ranges_(std::make_unique<Range[]>(static_cast<unsigned>(n_threads))) {
    for (int t = 0; t < n_threads; ++t) {
      ranges_[t].next.store(n_chunks * t / n_threads, std::memory_order_relaxed);
      ranges_[t].end = n_chunks * (t + 1) / n_threads;
    }
  }

  // The next chunk for this thread, or -1 when none are left.
  std::int64_t take(int thread) {
    for (int i = 0; i < n_threads_; ++i) {
      Range& range = ranges_[(thread + i) % n_threads_];
      if (range.next.load(std::memory_order_relaxed) >= range.end) continue;
      const std::int64_t chunk = range.next.fetch_add(1, std::memory_order_relaxed);
      if (chunk < range.end) return chunk;
    }
    return -1;
  }

 private:
  struct alignas(64) Range {
    std::atomic<std::int64_t> next;
    std::int64_t end = 0;
  };
  int n_threads_;
  std::unique_ptr<Range[]> ranges_;
};

}  // namespace specdec
