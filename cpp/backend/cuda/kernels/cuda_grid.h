// A thread of a CUDA grid, and launches. Only for nvcc.
#pragma once

#include <cuda_runtime.h>

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
    return *p;
  }
  template <class T>
  __device__ __forceinline__ void store(T* p, T value) const {
    *p = value;
  }

  // Read once: past the first cache, which is for the activations.
  __device__ __forceinline__ Word4 load_weight(const Word4* p) const {
    Word4 out;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(out.w[0]), "=r"(out.w[1]), "=r"(out.w[2]), "=r"(out.w[3])
        : "l"(p));
    return out;
  }
  __device__ __forceinline__ std::uint32_t load_weight(const std::uint32_t* p) const {
    std::uint32_t out;
    asm("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(out) : "l"(p));
    return out;
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
    asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
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
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
        "{%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(b));
  }
  __device__ __forceinline__ void mma_k32(std::int32_t* c, const std::uint32_t* a, std::uint32_t b0,
                                          std::uint32_t b1) const {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
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
  Body::run(g, params);
}

struct CudaLauncher {
  template <class Body>
  static void launch(const typename Body::Params& params, int grid_x, int grid_y, int n_threads,
                     int shared_bytes, Stream stream) {
    run_kernel<Body><<<dim3(static_cast<unsigned>(grid_x), static_cast<unsigned>(grid_y)),
                       static_cast<unsigned>(n_threads), static_cast<std::size_t>(shared_bytes),
                       static_cast<cudaStream_t>(stream)>>>(params);
  }
  static void matmul(const MatmulLaunch& launch, Stream stream);
};

// One file per family, so that they compile side by side.
void gpu_matmul_q32(const MatmulLaunch& launch, Stream stream);
void gpu_matmul_q256(const MatmulLaunch& launch, Stream stream);
void gpu_matmul_floats(const MatmulLaunch& launch, Stream stream);
void gpu_attention(const AttentionArgs& args, Stream stream);

}  // namespace specdec::cuda
