// The encoder that Q4_K and Q5_K share: super-blocks of eight lines with 6-bit scales and mins.
#pragma once

#include <cstdint>
#include <cstring>

#include "quant/k_scales.h"
#include "quant/super_block.h"

namespace specdec::search {

// Blocks with a fifth bit per code have it in `qh`.
template <class Block>
void encode_k_lines(const float* src, void* dst, std::int64_t n, Range range,
                    const Stretches& stretches) noexcept {
  auto* block = static_cast<Block*>(dst);
  for (std::int64_t i_block = 0; i_block < n / 256; ++i_block, ++block, src += 256) {
    Group<32> groups[8];
    const float spread = kSpread * rms_of(src, 256);
    for (int g = 0; g < 8; ++g) groups[g] = load_group<32>(src + 32 * g, spread);
    const auto found = search_lines<8>(groups, range, 63, stretches, 2);
    block->d = f32_to_f16(found.d);
    block->dmin = f32_to_f16(found.dmin);
    std::memset(block->scales, 0, sizeof block->scales);
    std::uint8_t codes[256];
    for (int g = 0; g < 8; ++g) {
      store_scale_min({found.scale[g], found.min[g]}, g, block->scales);
      store_codes(groups[g], found.d * static_cast<float>(found.scale[g]),
                  -found.dmin * static_cast<float>(found.min[g]), range, codes + 32 * g);
    }
    for (int i = 0; i < 128; ++i) {
      const std::uint8_t* pair = codes + i / 32 * 64 + i % 32;
      block->qs[i] = static_cast<std::uint8_t>((pair[0] & 15) | (pair[32] & 15) << 4);
    }
    if constexpr (requires { block->qh; }) {
      std::memset(block->qh, 0, sizeof block->qh);
      for (int i = 0; i < 256; ++i) {
        block->qh[i % 32] |= static_cast<std::uint8_t>((codes[i] >> 4) << (i / 32));
      }
    }
  }
}

}  // namespace specdec::search
