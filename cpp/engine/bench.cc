#include "engine/bench.h"

#include <algorithm>
#include <chrono>

#include "backend/backend.h"
#include "backend/device_backend.h"
#include "base/error.h"
#include "base/rng.h"
#include "engine/speed.h"
#include "kv/kv_cache.h"
#include "model/runner.h"

namespace specdec {
namespace {

constexpr int kMaxHeadRows = 16;  // a verification; longer passes read a prompt
constexpr std::uint64_t kBandwidthBytes = std::uint64_t{1} << 30;

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

BenchResult bench_forward(const LoadedModel& loaded, const BenchOptions& options) {
  const Model& model = loaded.model();
  int max_rows = 1;
  for (const int rows : options.rows) {
    if (rows < 1 || rows > kMaxBatchRows) {
      throw_invalid("rows is " + std::to_string(rows) + "; expected 1 to " +
                    std::to_string(kMaxBatchRows));
    }
    max_rows = std::max(max_rows, rows);
  }
  const KvType kv_type =
      options.kv_type.empty() ? loaded.kv_type() : parse_kv_type(options.kv_type);
  KvCache cache(KvArena::create({.device = model.device()}), model.kv_shape(kv_type),
                options.n_ctx + max_rows);
  Runner runner(model);
  std::vector<TokenId> tokens(static_cast<std::size_t>(std::max(options.n_ctx, max_rows)));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<TokenId>(random_bits(1, RngStream::kShuffle, i, 0) %
                                     static_cast<std::uint64_t>(model.config().n_tokens));
  }
  const auto forward = [&](int n, int first_output_row, RowOutput output) {
    runner.forward({.tokens = std::span(tokens).first(static_cast<std::size_t>(n)),
                    .first_output_row = first_output_row,
                    .output = output},
                   cache, options.cancel);
  };
  for (int done = 0; done < options.n_ctx; done += kMaxBatchRows) {
    forward(std::min(kMaxBatchRows, options.n_ctx - done), 0, RowOutput::kNone);
  }

  BenchResult result;
  result.times_ms.resize(options.rows.size());
  DeviceBackend* const gpu = model.device().get();
  const bool all_on_gpu = gpu != nullptr && model.n_device_layers() == model.config().n_layers;
  if (gpu != nullptr) result.device_ms.resize(options.rows.size());
  // The first round only warms up.
  for (int round = -1; round < options.n_rounds; ++round) {
    for (std::size_t i = 0; i < options.rows.size(); ++i) {
      check_cancelled(options.cancel);
      const int rows = options.rows[i];
      const double gpu_ms = gpu != nullptr ? gpu->device_stats().device_ms : 0;
      const auto start = Clock::now();
      forward(rows, rows <= kMaxHeadRows ? 0 : rows - 1, RowOutput::kArgmax);
      if (round >= 0) {
        result.times_ms[i].push_back(ms_since(start));
        if (gpu != nullptr) result.device_ms[i].push_back(gpu->device_stats().device_ms - gpu_ms);
      }
      cache.truncate(options.n_ctx);
      if (options.on_progress) {
        const double step =
            static_cast<double>(round + 1) * static_cast<double>(options.rows.size()) +
            static_cast<double>(i + 1);
        options.on_progress(step / (static_cast<double>(options.n_rounds + 1) *
                                    static_cast<double>(options.rows.size())));
      }
    }
    if (round >= 0) {
      result.read_bandwidth.push_back(
          all_on_gpu ? gpu->measure_bandwidth()
                     : measure_read_bandwidth(loaded.info().n_threads, kBandwidthBytes));
    }
  }
  return result;
}

std::vector<KernelBench> bench_kernels(int n_threads, const std::atomic<bool>* cancel) {
  constexpr std::int64_t kOut = 4096;
  constexpr std::int64_t kIn = 4096;
  constexpr std::uint64_t kTotalBytes = std::uint64_t{192} << 20;
  constexpr int kRounds = 5;
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
    for (int round = -1; round < kRounds; ++round) {
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
