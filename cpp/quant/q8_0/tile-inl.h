// How kernels read a Q8_0 tile (layout in pack.cc). Included inside a target region.
#pragma once

namespace specdec::SPECDEC_ISA {

struct TileQ8_0 {
  static constexpr int kHeaderBytes = 64;
  static constexpr int kBlockBytes = 8 * 64;
  static constexpr bool kHasMin = false;  // w = d q - d * 2^kZeroShift
  static constexpr int kZeroShift = 7;
  static constexpr int kMaxWeight = 255;

  // Codes of one block of 32, of rows lane .. lane + kLanes - 1.
  template <class S>
  SPECDEC_INLINE static void decode(const std::uint8_t* lines, int lane, typename S::Bytes* w) {
    unroll<8>([&]<int kV>() SPECDEC_INLINE { w[kV] = S::load(lines + 64 * kV + 4 * lane); });
  }
};

}  // namespace specdec::SPECDEC_ISA
