// Measures what decides whether speculation pays: the cost of a forward pass of M rows.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/loaded_model.h"

namespace specdec {

struct BenchOptions {
  std::vector<int> rows = {1, 2, 3, 4, 6, 8, 12, 16, 32, 512};  // rows per pass, 1..512 each
  int n_ctx = 256;      // positions in the cache before each pass
  int n_rounds = 7;     // every round measures every row count once; who is first rotates
  std::string kv_type;  // "": the model's
  const std::atomic<bool>* cancel = nullptr;
  std::function<void(double fraction)> on_progress;
};

// Milliseconds of whole forward passes. Passes of up to 16 rows put every row through the output
// head, as a verification does; longer ones only the last, as reading a prompt does.
struct BenchResult {
  std::vector<std::vector<double>> times_ms;  // [rows][rounds]
  // [rounds] bytes/s, eight last-level caches (256 MB to 1 GB) read sequentially in between; of a
  // model that is all on a GPU: the GPU's copies.
  std::vector<double> read_bandwidth;
  std::vector<std::vector<double>> device_ms;  // as times_ms, by the GPU's clock; empty without one
  std::uint64_t cache_bytes = 0;               // the last-level cache, 0: unknown
  double stolen_share = 0;  // of the processors' time meanwhile, what the host gave to others
  // Median over the row counts of the middle half of the times over their median.
  double spread = 0;
  // Figures to be repeated: more than kNoisySpread or kNoisyStolen.
  [[nodiscard]] bool noisy() const noexcept {
    return spread > kNoisySpread || stolen_share > kNoisyStolen;
  }
  static constexpr double kNoisySpread = 0.10;
  static constexpr double kNoisyStolen = 0.02;
};

[[nodiscard]] BenchResult bench_forward(const LoadedModel& model, const BenchOptions& options);

struct KernelBench {
  std::string dtype;
  double bytes_per_second = 0;  // weights read at one row
  double macs_per_second = 0;   // multiply-adds at eight rows
};

// Every weight format on synthetic matrices that exceed the caches; one round more warms up.
[[nodiscard]] std::vector<KernelBench> bench_kernels(int n_threads, int n_rounds,
                                                     const std::atomic<bool>* cancel);

[[nodiscard]] double median(std::vector<double> values);

}  // namespace specdec
