// What kernels need to know of a format of blocks besides its codec. A block struct has
//   kCodes                        as below
//   codes(b, q)                   the 32 codes of weights 32b .. 32b + 31
//   d, and m or dmin              f16; instead of d, d_bits() is the upper half of a float,
//   d_half()
//                                 the f16
//   scale(s), min(s)              blocks of 256: whole numbers of sub-block s
// Plain C++, on the host: kernels read what is packed from it.
#pragma once

#include <cstdint>

namespace specdec {

// Where the scales of a block are, and how many weights share one.
enum class ScaleKind {
  kBlock,     // blocks of 32: one, with a minimum added if there is m
  kPairs32,   // 32: unsigned scale and min of 6 bits
  kPairs16,   // 16: unsigned scale and min of 4 bits
  kSigned16,  // 16: signed, 8 bits
  kSigned32,  // 32: signed, 8 bits
};

struct Codes {
  int low_bits = 4;   // of a code that lie together
  int high_bits = 0;  // those above
  // Codes stand for q - 2^zero_shift, or for values[q]; -1: q itself. Of values no magnitude is
  // above 2^zero_shift.
  int zero_shift = -1;
  ScaleKind scales = ScaleKind::kBlock;
  int d_shift = 0;                      // weights are 2^-d_shift times what d says
  const std::int8_t* values = nullptr;  // [16]
  // Whether there are values. GCC with sanitizers takes no pointer's comparison for a constant.
  bool by_value = false;

  [[nodiscard]] constexpr int sub_block() const {
    return scales == ScaleKind::kPairs16 || scales == ScaleKind::kSigned16 ? 16 : 32;
  }
};

template <class Block>
inline constexpr bool kHasMin =
    requires(Block block) { block.m; } || requires(Block block) { block.dmin; };
// Scales that f16 cannot hold: bf16 instead.
template <class Block>
inline constexpr bool kWideScale = requires(Block block) { block.d_bits(); };

// The 16 bits of d, and of m or dmin.
template <class Block>
[[nodiscard]] constexpr std::uint16_t d_bits_of(const Block& block) {
  if constexpr (kWideScale<Block>) {
    return block.d_bits();
  } else if constexpr (requires { block.d_half(); }) {
    return block.d_half();
  } else {
    return block.d;
  }
}
template <class Block>
[[nodiscard]] constexpr std::uint16_t m_bits_of(const Block& block) {
  if constexpr (requires { block.m; }) {
    return block.m;
  } else {
    return block.dmin;
  }
}

// Blocks of 32 codes: nibbles k and k + 16 share a byte, fifth bits lie in `qh`.
template <class Block>
void nibble_codes(const Block& block, std::uint8_t* q) {
  for (int k = 0; k < 32; ++k) {
    int code = (block.qs[k % 16] >> (4 * (k / 16))) & 15;
    if constexpr (requires { block.qh; }) code |= ((block.qh[k / 8] >> (k % 8)) & 1) << 4;
    q[k] = static_cast<std::uint8_t>(code);
  }
}

}  // namespace specdec
