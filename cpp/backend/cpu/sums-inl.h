// How the sums of kCols columns lie in vectors. Usually each has one, whose lanes are rows. Sets
// with kRowPairs multiply two rows with two columns at once: sums 2p and 2p + 1 belong to columns
// 2p and 2p + 1 (an odd last one lies beside itself) and have the lanes r0c0 r0c1 r1c0 r1c1 and
// r2c0 r2c1 r3c0 r3c1; one column alone is as usual. Included inside a target region, after Simd.
#pragma once

namespace specdec::SPECDEC_KERNELS {

template <class S>
inline constexpr bool kHasRowPairs = requires { S::kRowPairs; };
inline constexpr bool kRowPairs = kHasRowPairs<Simd>;
template <int kCols>
inline constexpr bool kPaired = kRowPairs && kCols > 1;
template <int kCols>
inline constexpr int kSums = kPaired<kCols> ? even_columns(kCols) : kCols;
// Bytes of a block of 32 k of the input, and how far apart the codes of a column lie.
template <int kCols>
inline constexpr int kInputBytes = 32 * (kRowPairs ? even_columns(kCols) : kCols);
inline constexpr int kInputStep = kRowPairs ? 2 : 1;

// What sum kSum is multiplied with. Of its columns: p is where column kSum's number is or would be.
template <int kCols, int kSum, class S = Simd>
SPECDEC_INLINE inline typename S::F32 of_columns(const float* p) {
  if constexpr (!kPaired<kCols>) {
    return S::f_set1(*p);
  } else if constexpr (kSum / 2 * 2 + 1 < kCols) {
    return S::f_set2(p - kSum % 2);
  } else {
    return S::f_set1(p[-(kSum % 2)]);
  }
}
template <int kCols, int kSum, class S = Simd>
SPECDEC_INLINE inline typename S::I32 of_columns(const std::int32_t* p) {
  if constexpr (!kPaired<kCols>) {
    return S::set1(*p);
  } else if constexpr (kSum / 2 * 2 + 1 < kCols) {
    return S::set2(p - kSum % 2);
  } else {
    return S::set1(p[-(kSum % 2)]);
  }
}
// And of its rows, from one number for each row.
template <int kCols, int kSum, class Vector, class S = Simd>
SPECDEC_INLINE inline Vector of_rows(Vector x) {
  if constexpr (kPaired<kCols>) {
    return S::template twice<kSum % 2>(x);
  } else {
    return x;
  }
}

template <int kCols, int kSum, class S = Simd>
SPECDEC_INLINE inline typename S::I32 dot_pairs_of(typename S::I32 sum, typename S::I32 rows,
                                                   const std::int32_t* columns) {
  if constexpr (kPaired<kCols>) {
    return S::dot_pairs(sum, of_rows<kCols, kSum>(rows), of_columns<kCols, kSum>(columns));
  } else {
    return S::dot_pairs(sum, rows, columns);
  }
}

// Sums as they lie outside of the kernels: column after column, kTileRows apart.
template <int kCols, int kSum, class S = Simd>
SPECDEC_INLINE inline typename S::F32 load_sum(const float* from) {
  if constexpr (kPaired<kCols>) {
    constexpr int kFirst = kSum / 2 * 2;
    constexpr int kSecond = kFirst + 1 < kCols ? kFirst + 1 : kFirst;
    return S::template f_pair<kSum % 2>(S::f_load(from + kFirst * kTileRows),
                                        S::f_load(from + kSecond * kTileRows));
  } else {
    return S::f_load(from + kSum * kTileRows);
  }
}
template <int kCols, class S = Simd>
SPECDEC_INLINE inline void store_sums(const typename S::F32* sums, float* to) {
  unroll<kCols>([&]<int kC>() SPECDEC_INLINE {
    if constexpr (kPaired<kCols>) {
      const auto* pair = sums + kC / 2 * 2;
      S::f_store(to + kC * kTileRows, S::template f_column<kC % 2>(pair[0], pair[1]));
    } else {
      S::f_store(to + kC * kTileRows, sums[kC]);
    }
  });
}

}  // namespace specdec::SPECDEC_KERNELS
