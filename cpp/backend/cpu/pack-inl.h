// Packing as vector code: 16 bytes of kPackRows rows at a time become four vectors that hold one
// word of every row, lane r for row r, as the lines of a tile do. Layouts: tiles/tile_format.h.
// Included inside a target region after one of pack_scalar.h, pack_avx2.h and pack_avx512.h.
#pragma once

namespace specdec::SPECDEC_KERNELS {

inline constexpr int kPackRows = kPackBytes / 4;
inline constexpr std::uint32_t kLow4 = 0x0F0F0F0FU;
inline constexpr std::uint32_t kLow2 = 0x03030303U;

// w[i] = word i of the 16 bytes at `offset` of each row.
SPECDEC_INLINE inline void load_words(const std::byte* const* rows, std::size_t offset, Words* w) {
  const Words a = load_quads(rows, 0, offset);
  const Words b = load_quads(rows, 1, offset);
  const Words c = load_quads(rows, 2, offset);
  const Words d = load_quads(rows, 3, offset);
  const Words ab0 = zip_low(a, b);
  const Words ab1 = zip_high(a, b);
  const Words cd0 = zip_low(c, d);
  const Words cd1 = zip_high(c, d);
  w[0] = zip_low64(ab0, cd0);
  w[1] = zip_high64(ab0, cd0);
  w[2] = zip_low64(ab1, cd1);
  w[3] = zip_high64(ab1, cd1);
}

// One word per row.
SPECDEC_INLINE inline Words load_word(const std::byte* const* rows, std::size_t offset) {
  Words out;
  for (int r = 0; r < kPackRows; ++r) {
    std::uint32_t word;
    __builtin_memcpy(&word, rows[r] + offset, 4);
    out[r] = word;
  }
  return out;
}

SPECDEC_INLINE inline void put_line(Words w, std::uint8_t* line) {
  __builtin_memcpy(line, &w, kPackBytes);
}

// The two 16-bit halves of each row's word to dst and dst + 32, rows side by side.
SPECDEC_INLINE inline void put_halves(Words w, std::uint8_t* dst) {
  w = split_halves(w);
  std::uint8_t out[kPackBytes];
  __builtin_memcpy(out, &w, kPackBytes);
  for (int h = 0; h < 2; ++h)
    __builtin_memcpy(dst + 32 * h, out + kPackBytes / 2 * h, kPackBytes / 2);
}

// The four bytes of each row's word to dst, dst + 16, dst + 32, dst + 48, rows side by side.
SPECDEC_INLINE inline void put_bytes(Words w, std::uint8_t* dst) {
  w = split_bytes(w);
  std::uint8_t out[kPackBytes];
  __builtin_memcpy(out, &w, kPackBytes);
  for (int s = 0; s < 4; ++s)
    __builtin_memcpy(dst + 16 * s, out + kPackBytes / 4 * s, kPackBytes / 4);
}

// Line of two vectors of nibbles: their low halves, and their high halves.
SPECDEC_INLINE inline Words low_nibbles(Words a, Words b) { return (a & kLow4) | (b & kLow4) << 4; }
SPECDEC_INLINE inline Words high_nibbles(Words a, Words b) {
  return (a >> 4 & kLow4) | (b & ~kLow4);
}

// 4 vectors of 16 bytes whose nibbles belong to two different blocks: two lines of each.
SPECDEC_INLINE inline void put_nibbles(const Words* w, std::uint8_t* low, std::uint8_t* high) {
  put_line(low_nibbles(w[0], w[1]), low);
  put_line(low_nibbles(w[2], w[3]), low + 64);
  put_line(high_nibbles(w[0], w[1]), high);
  put_line(high_nibbles(w[2], w[3]), high + 64);
}

// Exchanges the bits of a under mask << shift with those of b under mask.
SPECDEC_INLINE inline void exchange(Words& a, Words& b, int shift, std::uint32_t mask) {
  const Words t = ((a >> shift) ^ b) & mask;
  b ^= t;
  a ^= t << shift;
}

// w[v] = bits 2t of all w become w[t] = bits 2v, in every byte.
SPECDEC_INLINE inline void transpose_two_bits(Words* w) {
  exchange(w[0], w[2], 4, kLow4);
  exchange(w[1], w[3], 4, kLow4);
  exchange(w[0], w[1], 2, 0x33333333U);
  exchange(w[2], w[3], 2, 0x33333333U);
}

// The same for single bits of 8 vectors.
SPECDEC_INLINE inline void transpose_bits(Words* w) {
  for (int v = 0; v < 4; ++v) exchange(w[v], w[v + 4], 4, kLow4);
  for (const int v : {0, 1, 4, 5}) exchange(w[v], w[v + 2], 2, 0x33333333U);
  for (const int v : {0, 2, 4, 6}) exchange(w[v], w[v + 1], 1, 0x55555555U);
}

// The two-bit lines of four blocks that share 32 bytes: line j of block t at
// dst + t * block_bytes + 64 j.
SPECDEC_INLINE inline void pack_two_bit_lines(const std::byte* const* rows, std::size_t offset,
                                              std::uint8_t* dst, std::size_t block_bytes) {
  for (std::size_t j = 0; j < 2; ++j) {
    Words w[4];
    load_words(rows, offset + 16 * j, w);
    transpose_two_bits(w);
    for (std::size_t t = 0; t < 4; ++t) put_line(w[t], dst + t * block_bytes + 64 * j);
  }
}

// The bit line of eight blocks that share 32 bytes.
SPECDEC_INLINE inline void pack_bit_lines(const std::byte* const* rows, std::size_t offset,
                                          std::uint8_t* dst, std::size_t block_bytes) {
  Words w[8];
  load_words(rows, offset, w);
  load_words(rows, offset + 16, w + 4);
  transpose_bits(w);
  for (std::size_t b = 0; b < 8; ++b) put_line(w[b], dst + b * block_bytes);
}

// Moves bit 4 v + i of every word to bit 8 i + v: four exchanges of index bits.
SPECDEC_INLINE inline Words bit_line(Words x) {
  const auto swap = [&](int shift, std::uint32_t mask) SPECDEC_INLINE {
    const Words t = ((x >> shift) ^ x) & mask;
    x ^= t ^ (t << shift);
  };
  swap(14, 0x0000CCCCU);  // index bits 4 and 1
  swap(7, 0x00AA00AAU);   // 3 and 0
  swap(2, 0x0C0C0C0CU);   // 2 and 1
  swap(1, 0x22222222U);   // 1 and 0
  return x;
}

// --- formats ---

// Blocks of 32 with nibbles, two to a tile.
template <class Block>
void pack_block32(const std::byte* const* all_rows, std::uint8_t* tile) {
  for (int r = 0; r < 16; r += kPackRows) {
    const std::byte* const* rows = all_rows + r;
    for (std::size_t b = 0; b < 2; ++b) {
      const std::size_t at = b * sizeof(Block);
      std::uint8_t* scales = tile + 32 * b + 2 * static_cast<std::size_t>(r);
      if constexpr (kHasMin<Block>) {
        const Words w = load_word(rows, at);
        std::uint8_t halves[64];
        put_halves(w, halves);
        __builtin_memcpy(scales, halves, 2 * kPackRows);
        __builtin_memcpy(scales + 64, halves + 32, 2 * kPackRows);
      } else if constexpr (kWideScale<Block>) {
        for (int i = 0; i < kPackRows; ++i) {
          const std::uint16_t d = reinterpret_cast<const Block*>(rows[i] + at)->d_bits();
          __builtin_memcpy(scales + 2 * i, &d, 2);
        }
      } else {
        for (int i = 0; i < kPackRows; ++i) __builtin_memcpy(scales + 2 * i, rows[i] + at, 2);
      }
      std::uint8_t* lines =
          tile + TileShape<Block>::kHeaderBytes + b * TileShape<Block>::kBlockBytes + 4 * r;
      Words w[4];
      load_words(rows, at + offsetof(Block, qs), w);
      put_nibbles(w, lines, lines + 128);
      if constexpr (Block::kCodes.high_bits == 1)
        put_line(bit_line(load_word(rows, at + offsetof(Block, qh))), lines + 256);
    }
  }
}

inline void pack_q8_0(const std::byte* const* all_rows, std::uint8_t* tile) {
  for (int r = 0; r < 16; r += kPackRows) {
    const std::byte* const* rows = all_rows + r;
    for (std::size_t b = 0; b < 2; ++b) {
      const std::size_t at = b * sizeof(BlockQ8_0);
      std::uint8_t* scales = tile + 32 * b + 2 * static_cast<std::size_t>(r);
      for (int i = 0; i < kPackRows; ++i) __builtin_memcpy(scales + 2 * i, rows[i] + at, 2);
      std::uint8_t* lines = tile + 64 + 512 * b + 4 * r;
      for (std::size_t h = 0; h < 2; ++h) {
        Words w[4];
        load_words(rows, at + offsetof(BlockQ8_0, qs) + 16 * h, w);
        for (std::size_t v = 0; v < 4; ++v) put_line(w[v] ^ 0x80808080U, lines + 64 * (4 * h + v));
      }
    }
  }
}

// Scales, mins and nibbles of Q4_K and Q5_K, which begin alike.
template <class Block, std::size_t kBlockBytes>
SPECDEC_INLINE inline void pack_k_nibbles(const std::byte* const* rows, int r, std::uint8_t* tile) {
  Words w[4];
  load_words(rows, 0, w);  // d and dmin, then 12 bytes of scales
  put_halves(w[0], tile + 2 * r);
  put_bytes(w[1] & 0x3F3F3F3FU, tile + 64 + r);
  put_bytes((w[3] & kLow4) | (w[1] >> 6 & kLow2) << 4, tile + 128 + r);
  const Words mins_low = w[2] & 0x3F3F3F3FU;
  const Words mins_high = (w[3] >> 4 & kLow4) | (w[2] >> 6 & kLow2) << 4;
  put_halves(mins_low, tile + 192 + 2 * r);
  put_halves(mins_high, tile + 256 + 2 * r);
  std::uint8_t* lines = tile + 320 + 4 * r;
  for (std::size_t i = 0; i < 4; ++i) {  // sub-blocks 2 i and 2 i + 1
    for (std::size_t h = 0; h < 2; ++h) {
      load_words(rows, offsetof(Block, qs) + 32 * i + 16 * h, w);
      put_nibbles(w, lines + 2 * i * kBlockBytes + 128 * h,
                  lines + (2 * i + 1) * kBlockBytes + 128 * h);
    }
  }
}

inline void pack_q4_k(const std::byte* const* rows, std::uint8_t* tile) {
  for (int r = 0; r < 16; r += kPackRows) pack_k_nibbles<BlockQ4_K, 256>(rows + r, r, tile);
}

inline void pack_q5_k(const std::byte* const* rows, std::uint8_t* tile) {
  for (int r = 0; r < 16; r += kPackRows) {
    pack_k_nibbles<BlockQ5_K, 320>(rows + r, r, tile);
    pack_bit_lines(rows + r, offsetof(BlockQ5_K, qh), tile + 320 + 256 + 4 * r, 320);
  }
}

inline void pack_q6_k(const std::byte* const* all_rows, std::uint8_t* tile) {
  constexpr std::size_t kBlockBytes = 6 * 64;
  __builtin_memset(tile + 32, 0, 32);
  for (int r = 0; r < 16; r += kPackRows) {
    const std::byte* const* rows = all_rows + r;
    for (int i = 0; i < kPackRows; ++i)
      __builtin_memcpy(tile + 2 * (r + i), rows[i] + offsetof(BlockQ6_K, d), 2);
    Words w[4];
    load_words(rows, offsetof(BlockQ6_K, scales), w);
    for (int i = 0; i < 4; ++i) put_bytes(w[i], tile + 64 + 64 * i + r);
    std::uint8_t* lines = tile + 320 + 4 * r;
    for (std::size_t half = 0; half < 2; ++half) {
      for (std::size_t j = 0; j < 2; ++j) {  // sub-blocks 4 half + j and 4 half + j + 2
        for (std::size_t h = 0; h < 2; ++h) {
          load_words(rows, 64 * half + 32 * j + 16 * h, w);
          put_nibbles(w, lines + (4 * half + j) * kBlockBytes + 128 * h,
                      lines + (4 * half + j + 2) * kBlockBytes + 128 * h);
        }
      }
      pack_two_bit_lines(rows, offsetof(BlockQ6_K, qh) + 32 * half,
                         lines + 4 * half * kBlockBytes + 256, kBlockBytes);
    }
  }
}

inline void pack_q2_k(const std::byte* const* all_rows, std::uint8_t* tile) {
  for (int r = 0; r < 16; r += kPackRows) {
    const std::byte* const* rows = all_rows + r;
    put_halves(load_word(rows, offsetof(BlockQ2_K, d)), tile + 2 * r);
    Words w[4];
    load_words(rows, 0, w);
    for (int i = 0; i < 4; ++i) put_halves(w[i], tile + 64 + 64 * i + 2 * r);
    for (std::size_t half = 0; half < 2; ++half) {
      pack_two_bit_lines(rows, offsetof(BlockQ2_K, qs) + 32 * half, tile + 320 + 4 * r + 512 * half,
                         128);
    }
  }
}

inline void pack_q3_k(const std::byte* const* all_rows, std::uint8_t* tile) {
  constexpr std::size_t kBlockBytes = 3 * 64;
  __builtin_memset(tile + 32, 0, 32);
  for (int r = 0; r < 16; r += kPackRows) {
    const std::byte* const* rows = all_rows + r;
    for (int i = 0; i < kPackRows; ++i)
      __builtin_memcpy(tile + 2 * (r + i), rows[i] + offsetof(BlockQ3_K, d), 2);
    constexpr std::size_t kScales = offsetof(BlockQ3_K, scales);
    const Words a = load_word(rows, kScales);
    const Words b = load_word(rows, kScales + 4);
    const Words top = load_word(rows, kScales + 8);
    const Words scales[4] = {
        (a & kLow4) | (top & kLow2) << 4, (b & kLow4) | (top >> 2 & kLow2) << 4,
        (a >> 4 & kLow4) | (top >> 4 & kLow2) << 4, (b >> 4 & kLow4) | (top >> 6 & kLow2) << 4};
    for (int i = 0; i < 4; ++i) {
      const Words flipped = scales[i] ^ 0x20202020U;  // minus 32, then the sign goes up
      const Words sign = flipped & 0x20202020U;
      put_bytes(flipped | sign << 1 | sign << 2, tile + 64 + 64 * i + r);
    }
    std::uint8_t* lines = tile + 320 + 4 * r;
    for (std::size_t half = 0; half < 2; ++half) {
      pack_two_bit_lines(rows, offsetof(BlockQ3_K, qs) + 32 * half, lines + 4 * half * kBlockBytes,
                         kBlockBytes);
    }
    pack_bit_lines(rows, offsetof(BlockQ3_K, hmask), lines + 128, kBlockBytes);
  }
}

inline void pack_iq4_xs(const std::byte* const* all_rows, std::uint8_t* tile) {
  __builtin_memset(tile + 32, 0, 32);
  for (int r = 0; r < 16; r += kPackRows) {
    const std::byte* const* rows = all_rows + r;
    for (int i = 0; i < kPackRows; ++i) {
      const auto* block = reinterpret_cast<const BlockIQ4_XS*>(rows[i]);
      __builtin_memcpy(tile + 2 * (r + i), &block->d, 2);
      const std::uint32_t high = block->scales_h;
      for (int s = 0; s < 8; ++s) {
        const int low = block->scales_l[s / 2] >> (4 * (s % 2)) & 15;
        tile[64 + 16 * s + r + i] =
            static_cast<std::uint8_t>((low | (high >> (2 * s) & 3U) << 4) - 32);
      }
    }
    std::uint8_t* lines = tile + TileShape<BlockIQ4_XS>::kHeaderBytes + 4 * r;
    for (std::size_t b = 0; b < 8; ++b) {
      Words w[4];
      load_words(rows, offsetof(BlockIQ4_XS, qs) + 16 * b, w);
      put_nibbles(w, lines + 256 * b, lines + 256 * b + 128);
    }
  }
}

// 8 weights of k.
inline void pack_16bit(const std::byte* const* rows, std::uint8_t* tiles) {
  for (int r = 0; r < 16; r += kPackRows) {
    Words w[4];
    load_words(rows + r, 0, w);
    for (int i = 0; i < 4; ++i) put_halves(w[i], tiles + 64 * i + 2 * r);
  }
}

// 4 weights of k.
inline void pack_32bit(const std::byte* const* rows, std::uint8_t* tiles) {
  for (int r = 0; r < 16; r += kPackRows) {
    Words w[4];
    load_words(rows + r, 0, w);
    for (int i = 0; i < 4; ++i) put_line(w[i], tiles + 64 * i + 4 * r);
  }
}

// The packer of a format; none: only the plain one of tile_format().
template <class Block>
inline constexpr std::nullptr_t kPacker = nullptr;
template <class Block>
  requires(sizeof(Block::qs) == 16)
inline constexpr auto* kPacker<Block> = &pack_block32<Block>;
template <>
inline constexpr auto* kPacker<BlockQ8_0> = &pack_q8_0;
template <>
inline constexpr auto* kPacker<BlockQ2_K> = &pack_q2_k;
template <>
inline constexpr auto* kPacker<BlockQ3_K> = &pack_q3_k;
template <>
inline constexpr auto* kPacker<BlockQ4_K> = &pack_q4_k;
template <>
inline constexpr auto* kPacker<BlockQ5_K> = &pack_q5_k;
template <>
inline constexpr auto* kPacker<BlockQ6_K> = &pack_q6_k;
template <>
inline constexpr auto* kPacker<BlockIQ4_XS> = &pack_iq4_xs;

// Plain data which the compiler fills, as in matmul.h.
constinit const PackKernels kPack = [] {
  PackKernels table;
#define SPECDEC_PLAIN(name, folder, id, bytes, ...) \
  table.of[dtype_index(DType::k##name)] = {bytes == 4 ? &pack_32bit : &pack_16bit, 16 / bytes};
#define SPECDEC_BLOCK(name, ...) table.of[dtype_index(DType::k##name)] = {kPacker<Block##name>, 1};
#include "tensor/formats.def"
  return table;
}();

}  // namespace specdec::SPECDEC_KERNELS
