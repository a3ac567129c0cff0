// A grid of CUDA threads on the CPU: every thread of a block is a fiber, blocks run one after the
// other. Runs the kernels of cpp/backend/cuda/kernels (their device.h lists what a grid offers) and
// finds what a GPU would not forgive:
//   - loads and stores outside of the registered device memory, or misaligned
//   - shared memory outside of what the launch asked for, and races on it: two threads, one of them
//     writing, with no sync() between
//   - stores, and loads of what kernels may write or an earlier one has stored, before
//     wait_for_previous(); threads that end without it or call it twice
//   - blocks of a launch that touch what others of it write, but with load_fresh() behind the
//   fences
//     that make it visible (when asked to: it is slow)
//   - warps whose lanes do not all reach a shuffle or mma, blocks whose threads do not all sync
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <typeinfo>
#include <vector>

#include "backend/cuda/kernels/device.h"
#include "backend/cuda/kernels/launch.h"
#include "backend/cuda/kernels/matmul_launch.h"
#include "backend/stream/memory_part.h"

namespace specdec::cuda {

// Device memory of the emulator. While any exists, kernels may touch nothing else.
class EmulatedBuffer {
 public:
  explicit EmulatedBuffer(std::size_t n_bytes, int fill = 0xFF);
  ~EmulatedBuffer();
  EmulatedBuffer(const EmulatedBuffer&) = delete;
  EmulatedBuffer& operator=(const EmulatedBuffer&) = delete;

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return n_bytes_; }
  template <class T>
  [[nodiscard]] T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte* data_;
  std::size_t n_bytes_;
};

struct EmulatorOptions {
  bool backwards = false;  // last block first, last warp first
  int n_processors = 1;    // of the device: only kernels and grids depend on it, no bits
  bool check_blocks = false;
};
EmulatorOptions& emulator_options();

// What went wrong since the last call, "" if nothing. Kernels after the first failure do not run.
std::string take_emulator_error();

// Of the n_bytes at `data`, kernels may touch only these parts (offsets) from now on.
void set_parts(std::byte* data, std::size_t n_bytes, const std::vector<stream::MemoryPart>& parts);

// The host has written there, in the order of the stream; and: nothing runs any more. What kernels
// stored before can be read by one that starts early.
void note_host_write(const void* data, std::size_t n_bytes);
void note_idle();

// Blocks run so far.
std::int64_t emulated_blocks();
// The same of launches.
int emulated_launches();

class EmulatedGrid;

template <class T>
class EmulatedShared {
 public:
  EmulatedShared(EmulatedGrid& grid, int offset) : grid_(&grid), offset_(offset) {}
  [[nodiscard]] T get(int i) const;
  void set(int i, T value) const;

 private:
  EmulatedGrid* grid_;
  int offset_;
};

// One thread.
class EmulatedGrid {
 public:
  [[nodiscard]] int block() const { return block_x_; }
  [[nodiscard]] int block_y() const { return block_y_; }
  [[nodiscard]] int thread() const { return thread_; }
  [[nodiscard]] int n_threads() const { return n_threads_; }
  void sync();

  template <class T>
  [[nodiscard]] T load(const T* p) {
    check_waited("load");
    return load_weight(p);
  }
  template <class T>
  [[nodiscard]] T load_weight(const T* p) {
    check_access(p, sizeof(T), alignof(T), "load");
    if (emulator_options().check_blocks) check_conflict(p, nullptr, sizeof(T));
    return *p;
  }
  template <class T>
  [[nodiscard]] T load_fresh(const T* p) {
    check_access(p, sizeof(T), alignof(T), "load");
    if (emulator_options().check_blocks) check_visible(p, sizeof(T));
    return *p;
  }
  template <class T>
  void store(T* p, T value) {
    check_waited("store");
    check_access(p, sizeof(T), alignof(T), "store");
    if (emulator_options().check_blocks) check_conflict(p, &value, sizeof(T));
    note_store(p, sizeof(T));
    *p = value;
  }
  std::int32_t atomic_add(std::int32_t* p, std::int32_t value) {
    check_waited("store");
    check_access(p, sizeof *p, alignof(std::int32_t), "store");
    note_store(p, sizeof *p);
    note_atomic();
    *p += value;
    return *p - value;
  }
  void fence();
  void prefetch(const void* p) { check_access(p, 1, 1, "prefetch"); }
  void wait_for_previous();

  template <class T>
  [[nodiscard]] EmulatedShared<T> shared(int offset) {
    return {*this, offset};
  }

  template <class T>
  [[nodiscard]] T shuffle(T value, int lane) {
    static_assert(sizeof(T) == 4);
    std::uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    const std::uint32_t got = exchange(&bits, 1, "shuffle")[(lane & 31) * kWords];
    T out;
    __builtin_memcpy(&out, &got, 4);
    return out;
  }
  template <class T>
  [[nodiscard]] T shuffle_xor(T value, int mask) {
    return shuffle(value, (thread_ % 32) ^ mask);
  }

  [[nodiscard]] std::int32_t dp4a(std::uint32_t a, std::uint32_t b, std::int32_t c) const;
  void mma_k32(std::int32_t* c, const std::uint32_t* a, std::uint32_t b0, std::uint32_t b1);
  void mma_k16(std::int32_t* c, std::uint32_t a0, std::uint32_t a1, std::uint32_t b);

  static constexpr int kWords = 8;  // a lane publishes at most so many at a time

 private:
  friend class BlockRunner;
  template <class T>
  friend class EmulatedShared;

  [[nodiscard]] int block_id() const;
  // Publishes words of this lane, waits for the warp, returns those of all lanes, kWords apart.
  const std::uint32_t* exchange(const std::uint32_t* words, int n, const char* what);
  void check_access(const void* p, std::size_t n, std::size_t alignment, const char* what);
  void check_waited(const char* what) const;
  void check_conflict(const void* p, const void* stored, std::size_t n) const;
  void check_visible(const void* p, std::size_t n) const;
  void note_store(const void* p, std::size_t n) const;
  void note_atomic() const;
  std::byte* shared_at(std::int64_t offset, std::size_t n, bool writes);

  class BlockRunner* runner_ = nullptr;
  int block_x_ = 0, block_y_ = 0, thread_ = 0, n_threads_ = 0;
  bool waited_ = false;
};

template <class T>
T EmulatedShared<T>::get(int i) const {
  T out;
  __builtin_memcpy(
      &out, grid_->shared_at(offset_ + std::int64_t{i} * std::int64_t{sizeof(T)}, sizeof(T), false),
      sizeof(T));
  return out;
}

template <class T>
void EmulatedShared<T>::set(int i, T value) const {
  __builtin_memcpy(
      grid_->shared_at(offset_ + std::int64_t{i} * std::int64_t{sizeof(T)}, sizeof(T), true),
      &value, sizeof(T));
}

// Whether a processor of each architecture can hold so many blocks of a launch: the emulator's
// error otherwise. max_threads, min_blocks: the launch bounds that the kernel is compiled for.
[[nodiscard]] bool fits_bounds(int n_threads, int shared_bytes, int max_threads, int min_blocks);

// A kernel that was launched: its type's name, and the most shared memory that it got.
struct LaunchedKernel {
  int max_threads = 0, min_blocks = 0;
  int shared_bytes = 0;
};
[[nodiscard]] std::map<std::string, LaunchedKernel>& launched_kernels();
void note_kernel(const std::type_info& type, const LaunchedKernel& kernel);

// Runs a grid; body(argument, thread).
void run_grid(int grid_x, int grid_y, int n_threads, int shared_bytes,
              void (*body)(const void* argument, EmulatedGrid& thread), const void* argument);

struct EmulatedLauncher {
  template <class Body>
  static void launch(const typename Body::Params& params, int grid_x, int grid_y, int n_threads,
                     int shared_bytes, Stream) {
    if (!fits_bounds(n_threads, shared_bytes, Body::kMaxThreads, Body::kMinBlocks)) return;
    note_kernel(typeid(Body), {Body::kMaxThreads, Body::kMinBlocks, shared_bytes});
    run_grid(
        grid_x, grid_y, n_threads, shared_bytes,
        [](const void* argument, EmulatedGrid& thread) {
          if constexpr (!Waits<Body>) thread.wait_for_previous();
          Body::run(thread, *static_cast<const typename Body::Params*>(argument));
        },
        &params);
  }
  static void matmul(const MatmulLaunch& launch, Stream stream);
  [[nodiscard]] static int n_processors() { return emulator_options().n_processors; }
};

void emulated_matmul_q32(const MatmulLaunch& launch, Stream stream);
void emulated_matmul_q256(const MatmulLaunch& launch, Stream stream);
void emulated_matmul_floats(const MatmulLaunch& launch, Stream stream);
void emulated_attention(const AttentionArgs& args, Stream stream);

// The table of launch.h over the emulator.
[[nodiscard]] const Kernels& emulated_kernels();

}  // namespace specdec::cuda
