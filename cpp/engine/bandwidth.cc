#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/system.h"
#include "base/thread_pool.h"
#include "engine/memory.h"
#include "engine/speed.h"

namespace specdec {
namespace {

// A private anonymous mapping: large pages where the system has them, given back at once.
class Pages {
 public:
  explicit Pages(std::size_t n_bytes) : n_bytes_(n_bytes) {
    data_ = ::mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data_ == MAP_FAILED) {
      throw Error(ErrorCode::kResource,
                  "no memory for a bandwidth test of " + std::to_string(n_bytes) + " bytes");
    }
    advise_huge_pages(data_, n_bytes);
  }
  ~Pages() { ::munmap(data_, n_bytes_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  [[nodiscard]] std::byte* data() const noexcept { return static_cast<std::byte*>(data_); }

 private:
  void* data_;
  std::size_t n_bytes_;
};

// Eight independent sums over 16-byte vectors keep enough loads in flight for the prefetchers.
std::uint64_t read_all(const std::byte* data, std::size_t n_bytes) {
  using Vector = std::uint64_t __attribute__((vector_size(16), may_alias));
  Vector sums[8] = {};
  for (std::size_t i = 0; i + 128 <= n_bytes; i += 128) {
    const auto* line = reinterpret_cast<const Vector*>(data + i);
    for (int j = 0; j < 8; ++j) sums[j] += line[j];
  }
  std::uint64_t total = 0;
  for (const Vector& sum : sums) total += sum[0] + sum[1];
  return total;
}

}  // namespace

double measure_read_bandwidth(int n_threads, std::uint64_t n_bytes) {
  if (n_threads == 0) n_threads = ThreadPool::default_n_threads();
  constexpr std::uint64_t kPiece = std::uint64_t{1} << 20;
  const std::uint64_t n_pieces = std::max<std::uint64_t>(n_bytes / kPiece, 1);
  // In a control group the pages are there to be mapped, and the process dies of writing them.
  if (const std::uint64_t available = available_memory_bytes(); n_bytes > available / 2) {
    throw Error(ErrorCode::kResource,
                "no memory to measure its speed with: " + std::to_string(n_bytes >> 20) +
                    " MiB are needed, of which twice as many should be free, and " +
                    std::to_string(available >> 20) + " MiB are");
  }
  const AllThreads all;
  const Pages pages(n_pieces * kPiece);
  ThreadPool& pool = ThreadPool::shared();
  // Writing first gives every page its own memory.
  pool.run(n_threads, [&](TaskContext& context) {
    for (std::int64_t i; (i = context.next_chunk()) < static_cast<std::int64_t>(n_pieces);) {
      std::memset(pages.data() + static_cast<std::uint64_t>(i) * kPiece, 1, kPiece);
    }
  });
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(n_threads));
  double best = 0;
  for (int pass = 0; pass < 3; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    pool.run(n_threads, [&](TaskContext& context) {
      std::uint64_t sum = 0;
      for (std::int64_t i; (i = context.next_chunk()) < static_cast<std::int64_t>(n_pieces);) {
        sum += read_all(pages.data() + static_cast<std::uint64_t>(i) * kPiece, kPiece);
      }
      sums[static_cast<std::size_t>(context.thread())] = sum;
    });
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    std::uint64_t total = 0;
    for (const std::uint64_t sum : sums) total += sum;
    // The sum is known, so the compiler cannot drop the reads and we notice if it did.
    SPECDEC_CHECK(total == n_pieces * (kPiece / 8) * 0x0101010101010101ULL);
    best = std::max(best, static_cast<double>(n_pieces * kPiece) / elapsed.count());
  }
  return best;
}

double read_bandwidth(int n_threads) {
  static std::mutex mutex;
  static std::map<int, double> known;
  if (n_threads == 0) n_threads = ThreadPool::default_n_threads();
  const std::lock_guard lock(mutex);
  auto [entry, is_new] = known.try_emplace(n_threads, 0.0);
  if (is_new) entry->second = measure_read_bandwidth(n_threads, std::uint64_t{256} << 20);
  return entry->second;
}

}  // namespace specdec
