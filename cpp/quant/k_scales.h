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

// Writes pair s into 12 bytes that were zero before the first.
inline void store_scale_min(ScaleMin pair, int s, std::uint8_t* packed) {
  const int at = s % 4;
  const auto add = [packed](int byte, int bits) {
    packed[byte] = static_cast<std::uint8_t>(packed[byte] | bits);
  };
  if (s < 4) {
    add(at, pair.scale);
    add(at + 4, pair.min);
  } else {
    add(at + 8, (pair.scale & 15) | (pair.min & 15) << 4);
    add(at, (pair.scale >> 4) << 6);
    add(at + 4, (pair.min >> 4) << 6);
  }
}

}  // namespace specdec
