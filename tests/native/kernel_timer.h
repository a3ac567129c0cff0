// Times single operations of the CUDA backend on a device: a recording of many launches, which take
// turns with several copies of what they read, so that no cache holds it, between two marks of the
// device's clock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/cuda/open_device.h"

namespace specdec::testing {

struct TimedLaunches {
  std::vector<double> ms;    // of one launch, in each repeat
  bool device_clock = true;  // false: the host's, on devices that have none
};

struct Repeats {
  int n_launches = 1;  // in the recording
  int n_repeats = 1;
};

struct MatrixShape {
  DType dtype = DType::kF32;
  std::int64_t n_out = 0, n_in = 0;
  int n_copies = 1;  // that take turns
};

struct CacheShape {
  KvType type = KvType::kF16;
  int n_heads = 0, n_kv_heads = 0, head_dim = 0;
  int n_positions = 0;  // before the rows
  int n_layers = 1;     // that take turns
};

class KernelTimer {
 public:
  // "cuda" or "emulated". `pool_bytes` of the device hold all weights and caches: random bits that
  // are never NaN or infinity, whatever they are read as.
  KernelTimer(const std::string& device, std::size_t pool_bytes);
  ~KernelTimer();
  KernelTimer(const KernelTimer&) = delete;
  KernelTimer& operator=(const KernelTimer&) = delete;

  [[nodiscard]] DeviceInfo info() const { return device_.runtime->info(); }

  // A copy of n_bytes within the device.
  [[nodiscard]] TimedLaunches copy(std::size_t n_bytes, const Repeats& repeats);
  // One number is read: what a launch costs.
  [[nodiscard]] TimedLaunches nothing(const Repeats& repeats);
  // For all types at once. norm: RMS.
  [[nodiscard]] TimedLaunches pack_input(const std::vector<DType>& dtypes, std::int64_t n_in,
                                         int n_rows, bool norm, const Repeats& repeats);
  [[nodiscard]] TimedLaunches linear(const MatrixShape& shape, int n_rows, bool use_dp4a,
                                     const Repeats& repeats);
  // Two matrices per copy.
  [[nodiscard]] TimedLaunches gated(const MatrixShape& shape, int n_rows, const Repeats& repeats);
  [[nodiscard]] TimedLaunches head(const MatrixShape& shape, int n_rows, int top_k,
                                   const Repeats& repeats);
  [[nodiscard]] TimedLaunches rope_store(const CacheShape& shape, int n_rows,
                                         const Repeats& repeats);
  // tree: row r hangs on row (r - 1) / 2.
  [[nodiscard]] TimedLaunches attention(const CacheShape& shape, int n_rows, bool tree,
                                        const Repeats& repeats);

 private:
  class Block;
  class Input;
  class Cache;

  using Issue = std::function<void(int launch)>;
  [[nodiscard]] TimedLaunches time(const Repeats& repeats, const Issue& issue);
  template <class Args>
  void launch(void (*kernels)(const Args&, cuda::Stream), const Args& args) {
    device_.runtime->launch("a measured kernel",
                            [kernels, args](void* stream) { kernels(args, stream); });
  }
  // A matrix of the pool.
  [[nodiscard]] cuda::PackedWeight weight(const MatrixShape& shape, int which) const;
  void require_pool(std::size_t n_bytes) const;

  cuda::OpenDevice device_;
  std::unique_ptr<Block> pool_;
};

}  // namespace specdec::testing
