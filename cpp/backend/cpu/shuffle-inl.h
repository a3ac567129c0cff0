// Lanes of two vectors in a new order. Included inside the target region of a unit.
#pragma once

namespace specdec::SPECDEC_KERNELS {

// Lanes Lanes... of a followed by b; as many as there are Lanes. GCC 11 does not know the builtin
// of GCC 12 and Clang.
template <int... Lanes, typename Vector>
SPECDEC_INLINE inline auto shuffle(Vector a, Vector b) {
#if __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(a, b, Lanes...);
#else
  using Lane = std::remove_cvref_t<decltype(a[0])>;
  if constexpr (sizeof(Vector) == sizeof(Lane) * sizeof...(Lanes)) {
    using Index = std::conditional_t<
        sizeof(Lane) == 1, std::int8_t,
        std::conditional_t<sizeof(Lane) == 2, std::int16_t,
                           std::conditional_t<sizeof(Lane) == 4, std::int32_t, std::int64_t>>>;
    using Order [[gnu::vector_size(sizeof(Vector))]] = Index;
    return __builtin_shuffle(a, b, Order{Lanes...});
  } else {
    constexpr int n = sizeof(Vector) / sizeof(Lane);
    using Wider [[gnu::vector_size(sizeof(Lane) * sizeof...(Lanes))]] = Lane;
    return Wider{(Lanes < n ? a[Lanes % n] : b[Lanes % n])...};
  }
#endif
}

}  // namespace specdec::SPECDEC_KERNELS
