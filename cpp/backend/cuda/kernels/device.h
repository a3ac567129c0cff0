// What kernels are written in: a small common language of CUDA C++ and plain C++. A kernel is a
// struct with `Params` and `template <class G> run(G& g, const Params&)`; G is one thread of a
// grid, on a GPU (cuda_grid.h) or in the emulator of the tests, and has
//   block(), block_y(), thread(), n_threads()       1-D blocks of whole warps
//   sync()                                          all threads of the block
//   load(p), store(p, value)                        device memory, aligned to sizeof(T)
//   load_weight(p), load_fresh(p)                   what no kernel writes; past the first cache
//   atomic_add(p, value), fence()                   between blocks
//   prefetch(p)                                     the 128 bytes around p into the second cache
//   wait_for_previous()                             until the kernels before this one are through
//   shared<T>(byte offset) -> get(i), set(i, v)     memory of the block
//   shuffle(v, lane), shuffle_xor(v, mask)          all 32 lanes of the warp
//   dp4a(a, b, c), mma_k32(c, a, b0, b1), mma_k16(c, a0, a1, b)
// A kernel may start while the one before it still runs (Hopper). Until wait_for_previous(), which
// every thread calls exactly once, it may only use what no kernel writes: load_weight(),
// load_fresh() of what a pass uploads, prefetch(). Kernels that do not say kWaits have it called
// before run(). The mma are products of int8 fragments of a warp, in the registers of mma.m16n8k32
// and m16n8k16: with g = lane / 4 and t = lane % 4
//   a[0], a[1]: rows g and g + 8, k = 4t .. 4t+3;  a[2], a[3]: the same rows, k = 16 + 4t ..
//   b0, b1: column g, k = 4t ..; k = 16 + 4t ..    c[0..3]: (g, 2t) (g, 2t+1) (g+8, 2t) (g+8, 2t+1)
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define SPECDEC_GPU __device__ __forceinline__
#define SPECDEC_UNROLL _Pragma("unroll")
#define SPECDEC_NO_UNROLL _Pragma("unroll 1")
#else
#include <bit>
#include <cmath>

#include "tensor/half.h"
#define SPECDEC_GPU inline
#define SPECDEC_UNROLL
#define SPECDEC_NO_UNROLL
#endif

namespace specdec::cuda {

// Kernels that wait themselves, after they have asked for what does not depend on others.
template <class Body>
concept Waits = requires { requires Body::kWaits; };

// Loaded and stored at once.
struct alignas(16) Word4 {
  std::uint32_t w[4];
};
struct alignas(8) Word2 {
  std::uint32_t w[2];
};
struct alignas(8) Float2 {
  float v[2];
};
struct alignas(16) Float4 {
  float v[4];
};
struct alignas(8) Int2 {
  std::int32_t v[2];
};
struct alignas(8) Half4 {
  std::uint16_t v[4];
};

SPECDEC_GPU float from_bits(std::uint32_t bits) {
#if defined(__CUDACC__)
  return __uint_as_float(bits);
#else
  return std::bit_cast<float>(bits);
#endif
}

SPECDEC_GPU std::uint32_t to_bits(float x) {
#if defined(__CUDACC__)
  return __float_as_uint(x);
#else
  return std::bit_cast<std::uint32_t>(x);
#endif
}

SPECDEC_GPU float half_to_float(std::uint16_t h) {
#if defined(__CUDACC__)
  float out;
  asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(h));
  return out;
#else
  return f16_to_f32(h);
#endif
}

SPECDEC_GPU std::uint16_t float_to_half(float x) {
#if defined(__CUDACC__)
  std::uint16_t out;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out) : "f"(x));
  return out;
#else
  return f32_to_f16(x);
#endif
}

SPECDEC_GPU float fma_of(float a, float b, float c) {
#if defined(__CUDACC__)
  return __fmaf_rn(a, b, c);
#else
  return std::fma(a, b, c);
#endif
}

// Byte i is byte (nibble i of `at`, below 8) of low and high, which follow each other.
SPECDEC_GPU std::uint32_t pick_bytes(std::uint32_t low, std::uint32_t high, std::uint32_t at) {
#if defined(__CUDACC__)
  return __byte_perm(low, high, at);
#else
  const std::uint64_t both = std::uint64_t{high} << 32 | low;
  std::uint32_t out = 0;
  for (int i = 0; i < 4; ++i)
    out |= static_cast<std::uint32_t>(both >> (8 * (at >> (4 * i) & 7U)) & 0xFFU) << (8 * i);
  return out;
#endif
}

SPECDEC_GPU float round_even(float x) {
#if defined(__CUDACC__)
  return rintf(x);
#else
  return std::nearbyint(x);
#endif
}

SPECDEC_GPU float square_root(float x) {
#if defined(__CUDACC__)
  return __fsqrt_rn(x);
#else
  return std::sqrt(x);
#endif
}

SPECDEC_GPU float divide(float a, float b) {
#if defined(__CUDACC__)
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}

SPECDEC_GPU float magnitude(float x) { return from_bits(to_bits(x) & 0x7FFFFFFFU); }

inline constexpr std::uint32_t kInfinityBits = 0x7F800000U;
SPECDEC_GPU float infinity() { return from_bits(kInfinityBits); }
SPECDEC_GPU float not_a_number() { return from_bits(0x7FC00000U); }
SPECDEC_GPU bool is_finite(float x) { return (to_bits(x) & kInfinityBits) != kInfinityBits; }

// Nearest even, saturated.
SPECDEC_GPU int to_int8(float x) {
  const float r = round_even(x);
  return static_cast<int>(r > 127.0F ? 127.0F : r < -128.0F ? -128.0F : r);
}

SPECDEC_GPU int smaller(int a, int b) { return a < b ? a : b; }
SPECDEC_GPU int larger(int a, int b) { return a < b ? b : a; }

}  // namespace specdec::cuda
