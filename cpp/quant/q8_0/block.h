// Q8_0: 32 weights of 8 bits, 8.5 bits per weight. w = d * q.
#pragma once

#include <cstdint>

namespace specdec {

// bytes 0-1    d       f16 scale
// bytes 2-33   qs[32]  signed weights
struct BlockQ8_0 {
  std::uint16_t d;
  std::int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

}  // namespace specdec
