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
  int n_rounds = 7;     // every round measures every row count once, in turn
  std::string kv_type;  // "": the model's
  const std::atomic<bool>* cancel = nullptr;
  std::function<void(double fraction)> on_progress;
};

// Milliseconds of whole forward passes. Passes of up to 16 rows put every row through the output
// head, as a verification does; longer ones only the last, as reading a prompt does.
struct BenchResult {
  std::vector<std::vector<double>> times_ms;  // [rows][rounds]
  // [rounds] bytes/s, 1 GB read sequentially in between; of a model that is all on a GPU: the GPU's
  // copies.
  std::vector<double> read_bandwidth;
  std::vector<std::vector<double>> device_ms;  // as times_ms, by the GPU's clock; empty without one
};

[[nodiscard]] BenchResult bench_forward(const LoadedModel& model, const BenchOptions& options);

struct KernelBench {
  std::string dtype;
  double bytes_per_second = 0;  // weights read at one row
  double macs_per_second = 0;   // multiply-adds at eight rows
};

// Every weight format on synthetic matrices that exceed the caches.
[[nodiscard]] std::vector<KernelBench> bench_kernels(int n_threads,
                                                     const std::atomic<bool>* cancel);

[[nodiscard]] double median(std::vector<double> values);

}  // namespace specdec
