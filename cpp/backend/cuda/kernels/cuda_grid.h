// A thread of a CUDA grid, and launches. Only for nvcc.
#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "backend/cuda/kernels/matmul_launch.h"

namespace specdec::cuda {

template <class T>
struct CudaShared {
  T* data;
  __device__ __forceinline__ T get(int i) const { return data[i]; }
  __device__ __forceinline__ void set(int i, T value) const { data[i] = value; }
};

struct CudaGrid {
  __device__ __forceinline__ int block() const { return static_cast<int>(blockIdx.x); }
  __device__ __forceinline__ int block_y() const { return static_cast<int>(blockIdx.y); }
  __device__ __forceinline__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ __forceinline__ int n_threads() const { return static_cast<int>(blockDim.x); }
  __device__ __forceinline__ void sync() const { __syncthreads(); }

  template <class T>
  __device__ __forceinline__ T load(const T* p) const {
    __builtin_assume(__isGlobal(p));
    return *p;
  }
  template <class T>
  __device__ __forceinline__ void store(T* p, T value) const {
    __builtin_assume(__isGlobal(p));
    *p = value;
  }

  // What no kernel writes. Read once: past the first cache, which is for the activations.
  template <class T>
  __device__ __forceinline__ T load_weight(const T* p) const {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
    T out;
    auto* w = reinterpret_cast<std::uint32_t*>(&out);
    if constexpr (sizeof(T) == 16) {
      asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
          : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
          : "l"(p));
    } else if constexpr (sizeof(T) == 8) {
      asm("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(w[0]), "=r"(w[1]) : "l"(p));
    } else {
      asm("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(w[0]) : "l"(p));
    }
    return out;
  }
  // Past the first cache: what a pass uploads, and what other blocks have written.
  template <class T>
  __device__ __forceinline__ T load_fresh(const T* p) const {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8);
    T out;
    if constexpr (sizeof(T) == 8) {
      asm volatile("ld.global.cg.u64 %0, [%1];"
                   : "=l"(reinterpret_cast<std::uint64_t&>(out))
                   : "l"(p)
                   : "memory");
    } else {
      asm volatile("ld.global.cg.u32 %0, [%1];"
                   : "=r"(reinterpret_cast<std::uint32_t&>(out))
                   : "l"(p)
                   : "memory");
    }
    return out;
  }
  __device__ __forceinline__ std::int32_t atomic_add(std::int32_t* p, std::int32_t value) const {
    return atomicAdd(p, value);
  }
  __device__ __forceinline__ void fence() const { __threadfence(); }
  __device__ __forceinline__ void prefetch(const void* p) const {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
  }

  // Both are nothing when the launch does not allow an early start.
  __device__ __forceinline__ void wait_for_previous() const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
  }
  static __device__ __forceinline__ void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
  }

  template <class T>
  __device__ __forceinline__ CudaShared<T> shared(int offset) const {
    extern __shared__ __align__(16) unsigned char memory[];
    return {reinterpret_cast<T*>(memory + offset)};
  }

  template <class T>
  __device__ __forceinline__ T shuffle(T value, int lane) const {
    return __shfl_sync(0xFFFFFFFFU, value, lane);
  }
  template <class T>
  __device__ __forceinline__ T shuffle_xor(T value, int mask) const {
    return __shfl_xor_sync(0xFFFFFFFFU, value, mask);
  }

  __device__ __forceinline__ std::int32_t dp4a(std::uint32_t a, std::uint32_t b,
                                               std::int32_t c) const {
    return __dp4a(static_cast<std::int32_t>(a), static_cast<std::int32_t>(b), c);
  }

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  // 8 x 8 x 16: half the rows and half the k of the fragments.
  static __device__ __forceinline__ void mma_8x8x16(std::int32_t* c, std::uint32_t a,
                                                    std::uint32_t b) {
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                 : "+r"(c[0]), "+r"(c[1])
                 : "r"(a), "r"(b));
  }
  __device__ __forceinline__ void mma_k16(std::int32_t* c, std::uint32_t a0, std::uint32_t a1,
                                          std::uint32_t b) const {
    mma_8x8x16(c, a0, b);
    mma_8x8x16(c + 2, a1, b);
  }
  __device__ __forceinline__ void mma_k32(std::int32_t* c, const std::uint32_t* a, std::uint32_t b0,
                                          std::uint32_t b1) const {
    mma_k16(c, a[0], a[1], b0);
    mma_k16(c, a[2], a[3], b1);
  }
#else
  __device__ __forceinline__ void mma_k16(std::int32_t* c, std::uint32_t a0, std::uint32_t a1,
                                          std::uint32_t b) const {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
        "{%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(b));
  }
  __device__ __forceinline__ void mma_k32(std::int32_t* c, const std::uint32_t* a, std::uint32_t b0,
                                          std::uint32_t b1) const {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
#endif
};

template <class Body>
__global__ void __launch_bounds__(Body::kMaxThreads, Body::kMinBlocks)
    run_kernel(const __grid_constant__ typename Body::Params params) {
  CudaGrid g;
  CudaGrid::let_next_start();
  if constexpr (!Waits<Body>) g.wait_for_previous();
  Body::run(g, params);
}

// What launches need to know of the current device.
struct DeviceTraits {
  int n_processors = 1;
  bool starts_early = false;  // kernels may start before the one before them has ended
};
[[nodiscard]] const DeviceTraits& device_traits();

// Of this thread's next launch: not behind a copy, whose end it could not wait for in the kernel.
[[nodiscard]] bool& next_may_start_early();

struct CudaLauncher {
  template <class Body>
  static void launch(const typename Body::Params& params, int grid_x, int grid_y, int n_threads,
                     int shared_bytes, Stream stream) {
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(grid_x), static_cast<unsigned>(grid_y));
    config.blockDim = dim3(static_cast<unsigned>(n_threads));
    config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
    config.stream = static_cast<cudaStream_t>(stream);
    config.attrs = &attribute;
    const bool behind_kernel = std::exchange(next_may_start_early(), true);
    config.numAttrs = behind_kernel && device_traits().starts_early ? 1 : 0;
    // An error stays for cudaGetLastError(), which the runtime asks after every launch.
    (void)cudaLaunchKernelEx(&config, run_kernel<Body>, params);
  }
  static void matmul(const MatmulLaunch& launch, Stream stream);
  [[nodiscard]] static int n_processors();
};

// One file per family, so that they compile side by side.
void gpu_matmul_q32(const MatmulLaunch& launch, Stream stream);
void gpu_matmul_q256(const MatmulLaunch& launch, Stream stream);
void gpu_matmul_floats(const MatmulLaunch& launch, Stream stream);
void gpu_attention(const AttentionArgs& args, Stream stream);

}  // namespace specdec::cuda
