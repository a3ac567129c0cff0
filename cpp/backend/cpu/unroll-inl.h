// Loops unrolled by the front end, so that arrays of vectors live in registers. Included inside a
// target region.
#pragma once

// Inlining before the first optimisation passes is what lets arrays of vectors become registers.
#define SPECDEC_INLINE __attribute__((always_inline))

namespace specdec::SPECDEC_KERNELS {

// Calls f<0>(), f<1>(), ..., f<kN - 1>().
template <int kN, class F>
SPECDEC_INLINE inline void unroll(F&& f) {
  [&]<int... kI>(std::integer_sequence<int, kI...>)
      SPECDEC_INLINE { (f.template operator()<kI>(), ...); }(std::make_integer_sequence<int, kN>());
}

}  // namespace specdec::SPECDEC_KERNELS
