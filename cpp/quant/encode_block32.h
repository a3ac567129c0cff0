// Encoders of the formats with blocks of 32 weights and one scale in half precision.
#pragma once

#include <cstdint>
#include <cstring>

#include "quant/search.h"

namespace specdec::search {

// Q4_0, Q4_1, Q5_0, Q5_1: codes 0 .. 15 or 31.
template <class Block>
void store_nibbles(const std::uint8_t* codes, Block* block) noexcept {
  for (int k = 0; k < 16; ++k) {
    block->qs[k] = static_cast<std::uint8_t>((codes[k] & 15) | (codes[k + 16] & 15) << 4);
  }
  if constexpr (requires { block->qh; }) {
    std::uint32_t high = 0;
    for (int k = 0; k < 32; ++k) high |= static_cast<std::uint32_t>(codes[k] >> 4) << k;
    std::memcpy(block->qh, &high, 4);
  }
}

// y = d q with the codes of `range`.
template <class Block>
void encode_scaled(const float* src, void* dst, std::int64_t n, Range range,
                   const Candidates& candidates) noexcept {
  auto* block = static_cast<Block*>(dst);
  for (std::int64_t i = 0; i < n / 32; ++i, ++block, src += 32) {
    const Group<32> group = load_group<32>(src, kSpread * rms_of(src, 32));
    block->d = f32_to_f16(search_scale(group, range, candidates));
    std::uint8_t codes[32];
    store_codes(group, f16_to_f32(block->d), 0.0F, range, codes);
    store_nibbles(codes, block);
  }
}

// y = d q + m with the codes of `range`.
template <class Block>
void encode_lines(const float* src, void* dst, std::int64_t n, Range range,
                  const Stretches& stretches) noexcept {
  auto* block = static_cast<Block*>(dst);
  for (std::int64_t i = 0; i < n / 32; ++i, ++block, src += 32) {
    const Group<32> group = load_group<32>(src, kSpread * rms_of(src, 32));
    const LineFit fit = search_line(group, range, Offset::kAny, stretches);
    block->d = f32_to_f16(fit.scale);
    block->m = f32_to_f16(fit.offset);
    // Where half precision has few values left, one for all may be better.
    const float constant = f16_to_f32(f32_to_f16(group.sum_w > 0 ? group.sum_x / group.sum_w : 0));
    if (line_error(group, 0.0F, constant, range) <
        line_error(group, f16_to_f32(block->d), f16_to_f32(block->m), range)) {
      block->d = 0;
      block->m = f32_to_f16(constant);
    }
    std::uint8_t codes[32];
    store_codes(group, f16_to_f32(block->d), f16_to_f32(block->m), range, codes);
    store_nibbles(codes, block);
  }
}

}  // namespace specdec::search
