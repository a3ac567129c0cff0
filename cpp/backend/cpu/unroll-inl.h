// Loops unrolled by the front end, so that arrays of vectors live in registers. Included inside a
// target region.
#pragma once

// Inlining before the first optimisation passes is what lets arrays of vectors become registers.
#define SPECDEC_INLINE __attribute__((always_inline))

// Before loops of at most 16 turns that are known at compile time and need no constants of their
// own: the optimiser unrolls them, whose body it inlines once. unroll() has it inlined for every
// turn at every depth, which takes GCC several times as long.
#ifdef __clang__
#define SPECDEC_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SPECDEC_UNROLL _Pragma("GCC unroll 16")
#endif

namespace specdec::SPECDEC_KERNELS {

// Calls f<0>(), f<1>(), ..., f<kN - 1>().
template <int kN, class F>
SPECDEC_INLINE inline void unroll(F&& f) {
  [&]<int... kI>(std::integer_sequence<int, kI...>)
      SPECDEC_INLINE { (f.template operator()<kI>(), ...); }(std::make_integer_sequence<int, kN>());
}

}  // namespace specdec::SPECDEC_KERNELS
