#include "engine/bench.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "backend/backend.h"
#include "backend/device_backend.h"
#include "base/error.h"
#include "base/rng.h"
#include "base/system.h"
#include "base/thread_pool.h"
#include "engine/memory.h"
#include "engine/speed.h"
#include "engine/spread.h"
#include "kv/kv_cache.h"
#include "model/runner.h"

namespace specdec {
namespace {

constexpr int kMaxHeadRows = 16;  // a verification; longer passes read a prompt
constexpr std::uint64_t kLeastBandwidthBytes = std::uint64_t{256} << 20;
constexpr std::uint64_t kMostBandwidthBytes = std::uint64_t{1} << 30;

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

void check_cancelled(const std::atomic<bool>* cancel) {
  if (cancel != nullptr && cancel->load())
    throw Error(ErrorCode::kCancelled, "the benchmark was cancelled");
}

}  // namespace

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

namespace {

void check_rows(const std::vector<int>& all) {
  if (all.empty()) throw_invalid("rows is empty; expected numbers of rows per pass");
  for (const int rows : all) {
    if (rows < 1 || rows > kMaxBatchRows) {
      throw_invalid("rows is " + std::to_string(rows) + "; expected 1 to " +
                    std::to_string(kMaxBatchRows));
    }
  }
}

// A cache of options.n_ctx random tokens, and passes of some rows behind it.
class BenchPasses {
 public:
  BenchPasses(const LoadedModel& loaded, const BenchOptions& options)
      : options_(options),
        max_rows_(*std::max_element(options.rows.begin(), options.rows.end())),
        cache_(KvArena::create({.device = loaded.model().device()}),
               loaded.model().kv_shape(options.kv_type.empty() ? loaded.kv_type()
                                                               : parse_kv_type(options.kv_type)),
               options.n_ctx + max_rows_),
        runner_(loaded.model()),
        tokens_(static_cast<std::size_t>(std::max(options.n_ctx, max_rows_))) {
    const auto n_tokens = static_cast<std::uint64_t>(loaded.model().config().n_tokens);
    for (std::size_t i = 0; i < tokens_.size(); ++i)
      tokens_[i] = static_cast<TokenId>(random_bits(1, RngStream::kShuffle, i, 0) % n_tokens);
    for (int done = 0; done < options.n_ctx; done += kMaxBatchRows)
      forward(std::min(kMaxBatchRows, options.n_ctx - done), 0, RowOutput::kNone);
  }

  // Milliseconds; leaves the cache as it was.
  double time(int rows) {
    check_cancelled(options_.cancel);
    const auto start = Clock::now();
    forward(rows, rows <= kMaxHeadRows ? 0 : rows - 1, RowOutput::kArgmax);
    const double ms = ms_since(start);
    cache_.truncate(options_.n_ctx);
    return ms;
  }

 private:
  void forward(int n, int first_output_row, RowOutput output) {
    runner_.forward({.tokens = std::span(tokens_).first(static_cast<std::size_t>(n)),
                     .first_output_row = first_output_row,
                     .output = output},
                    cache_, options_.cancel);
  }

  const BenchOptions& options_;
  int max_rows_;
  KvCache cache_;
  Runner runner_;
  std::vector<TokenId> tokens_;
};

void judge_noise(const std::optional<CpuTicks>& before, BenchResult& result) {
  std::vector<double> spreads;
  for (const auto& times : result.times_ms) spreads.push_back(relative_spread(times));
  result.spread = median(std::move(spreads));
  const auto after = read_cpu_ticks();
  // What was stolen can be less than before where a virtual machine has moved.
  if (before && after && after->total > before->total && after->stolen >= before->stolen) {
    result.stolen_share = static_cast<double>(after->stolen - before->stolen) /
                          static_cast<double>(after->total - before->total);
  }
}

}  // namespace

BenchResult bench_forward(const LoadedModel& loaded, const BenchOptions& options) {
  check_rows(options.rows);
  const Model& model = loaded.model();
  const AllThreads all;
  BenchPasses passes(loaded, options);
  const std::size_t n_counts = options.rows.size();
  BenchResult result;
  result.times_ms.resize(n_counts);
  result.cache_bytes = last_level_cache_bytes();
  const std::uint64_t n_bandwidth_bytes =
      std::min(std::clamp(8 * result.cache_bytes, kLeastBandwidthBytes, kMostBandwidthBytes),
               available_memory_bytes() / 4);
  DeviceBackend* const gpu = model.device().get();
  const bool all_on_gpu = gpu != nullptr && model.n_device_layers() == model.config().n_layers;
  if (gpu != nullptr) result.device_ms.resize(n_counts);
  const auto ticks = read_cpu_ticks();
  // The first round only warms up.
  for (int round = -1; round < options.n_rounds; ++round) {
    // Another one is first each time, behind a pass that brings the weights back into the caches
    // which the test of the bandwidth has swept.
    const std::size_t first = static_cast<std::size_t>(round + 1) % n_counts;
    if (round >= 0) passes.time(options.rows[first]);
    for (std::size_t k = 0; k < n_counts; ++k) {
      const std::size_t i = (first + k) % n_counts;
      const double gpu_ms = gpu != nullptr ? gpu->device_stats().device_ms : 0;
      const double ms = passes.time(options.rows[i]);
      if (round >= 0) {
        result.times_ms[i].push_back(ms);
        if (gpu != nullptr) result.device_ms[i].push_back(gpu->device_stats().device_ms - gpu_ms);
      }
      if (options.on_progress) {
        const auto done =
            static_cast<double>(static_cast<std::size_t>(round + 1) * n_counts + k + 1);
        options.on_progress(done / static_cast<double>((options.n_rounds + 1) * n_counts));
      }
    }
    if (round >= 0) {
      result.read_bandwidth.push_back(
          all_on_gpu ? gpu->measure_bandwidth()
                     : measure_read_bandwidth(loaded.info().n_threads, n_bandwidth_bytes));
    }
  }
  judge_noise(ticks, result);
  return result;
}

std::vector<KernelBench> bench_kernels(int n_threads, int n_rounds,
                                       const std::atomic<bool>* cancel) {
  const AllThreads all;
  constexpr std::int64_t kOut = 4096;
  constexpr std::int64_t kIn = 4096;
  constexpr std::uint64_t kTotalBytes = std::uint64_t{192} << 20;
  const auto backend = make_cpu_backend(n_threads);
  std::vector<float> x(8 * kIn);
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(random_uniform(1, RngStream::kShuffle, i, 1)) - 0.5F;
  }
  std::vector<float> y(8 * kOut);
  std::vector<KernelBench> out;
  for (const DTypeTraits& traits : all_dtypes()) {
    const std::uint64_t n_bytes = kOut * row_bytes(traits.dtype, kIn);
    // Zero bytes are valid weights of every format, and no kernel is faster for them.
    const std::vector<std::byte> data(n_bytes);
    std::vector<std::unique_ptr<WeightMatrix>> weights;
    for (std::uint64_t used = 0; used < kTotalBytes; used += n_bytes) {
      weights.push_back(backend->load_matrix(traits.dtype, kOut, kIn, data));
    }
    std::vector<double> one;
    std::vector<double> eight;
    for (int round = -1; round < n_rounds; ++round) {
      for (const int rows : {1, 8}) {
        check_cancelled(cancel);
        const auto start = Clock::now();
        for (const auto& weight : weights) {
          const LinearSegment segment{.weight = weight.get(), .dst = y.data(), .dst_stride = kOut};
          backend->linear({.x = x.data(),
                           .x_stride = kIn,
                           .n_rows = rows,
                           .norm = {},
                           .segments = {&segment, 1}});
        }
        if (round >= 0) (rows == 1 ? one : eight).push_back(ms_since(start));
      }
    }
    const auto n = static_cast<double>(weights.size());
    out.push_back({traits.name, n * static_cast<double>(n_bytes) / (median(one) / 1000),
                   n * 8.0 * static_cast<double>(kOut * kIn) / (median(eight) / 1000)});
  }
  return out;
}

}  // namespace specdec
