// What kernels of many columns multiply in: eight registers of up to 16 rows of 64 bytes, as AMX
// has them. Registers of a set (amx_registers.h), or of the tests, offer as static functions
//   configure(config), release()   for the thread; a register is used within its shape
//   zero<r>(), load<r>(p, stride), store<r>(p, stride)
//   dot_su<c, a, b>(), dot_ss<c, a, b>()
// c[m][n] += sum over k of a[m][k] * b[k / 4][n][k % 4] in 32 bits: signed bytes of a times
// unsigned (su) or signed (ss) bytes of b.
#pragma once

#include <cstdint>

namespace specdec {

// As the processor reads it.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

inline constexpr int kRegisterRows = 16;
inline constexpr int kRegisterBytes = 1024;

// How 16 bits of a code times its scale become operands of bytes; sums of several are put together
// behind the product, in integers.
enum class Planes {
  kSplit,    // unsigned code times the scale's low and high 3 bits: low + 8 high
  kSingle,   // one unsigned byte
  kNegated,  // minus the product is one signed byte (which has no 128)
  kWords,    // the low byte unsigned, the high one signed: low + 256 high
};

}  // namespace specdec
