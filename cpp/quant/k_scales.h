// The packed 6-bit (scale, min) pairs that Q4_K and Q5_K share; layout in q4_k/block.h.
#pragma once

#include <cstdint>

namespace specdec {

struct ScaleMin {
  int scale;
  int min;
};

// Pair s (0..7) of the 12 packed bytes.
[[nodiscard]] inline ScaleMin unpack_scale_min(const std::uint8_t* packed, int s) {
  if (s < 4) return {packed[s] & 63, packed[s + 4] & 63};
  return {(packed[s + 4] & 15) | (packed[s - 4] >> 6) << 4, (packed[s + 4] >> 4) | (packed[s] >> 6)
                                                                                       << 4};
}

}  // namespace specdec
