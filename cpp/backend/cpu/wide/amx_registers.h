// The tile registers of AMX. Not the compilers' intrinsics: GCC's take no register number from a
// template. Included inside a target region.
#pragma once

namespace specdec::SPECDEC_KERNELS {

struct Registers {
  SPECDEC_INLINE static void configure(const TileConfig& config) {
    asm volatile("ldtilecfg %0" : : "m"(config));
  }
  SPECDEC_INLINE static void release() { asm volatile("tilerelease"); }

  template <int kT>
  SPECDEC_INLINE static void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kT));
  }
  template <int kT>
  SPECDEC_INLINE static void load(const void* p, std::int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(kT) : "memory");
  }
  template <int kT>
  SPECDEC_INLINE static void store(void* p, std::int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(kT) : "memory");
  }
  // The last operand is the sum, the one before it the rows of a.
  template <int kC, int kA, int kB>
  SPECDEC_INLINE static void dot_su() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
  }
  template <int kC, int kA, int kB>
  SPECDEC_INLINE static void dot_ss() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
  }
};

}  // namespace specdec::SPECDEC_KERNELS
