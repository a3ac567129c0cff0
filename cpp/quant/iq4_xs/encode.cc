#include <cstring>

#include "quant/encode.h"
#include "quant/iq4_xs/block.h"
#include "quant/search_values.h"

namespace specdec {
namespace {

using namespace search;

constexpr int kGroups = 8;

struct Found {
  float d = 0;  // exact in half precision
  float error = 0;
  int scale[kGroups] = {};
};

// The best whole numbers near `wanted` / d.
Found pick(const float* x, const float* wanted, float spread, float d) noexcept {
  Found out;
  out.d = d;
  for (int g = 0; g < kGroups; ++g) {
    float best = value_error(x + 32 * g, 32, spread, 0.0F, kIq4Values);
    const int middle = d == 0.0F ? 0 : nearest_int(std::clamp(wanted[g] / d, -32.0F, 31.0F));
    for (int scale = std::max(middle - 1, -32); d != 0.0F && scale <= std::min(middle + 1, 31);
         ++scale) {
      const float error =
          value_error(x + 32 * g, 32, spread, d * static_cast<float>(scale), kIq4Values);
      if (error < best) {
        best = error;
        out.scale[g] = scale;
      }
    }
    out.error += best;
  }
  return out;
}

// The best d for the codes that these scales give.
float refit(const float* x, const Found& found, float spread) noexcept {
  float dot = 0;
  float square = 0;
  for (int g = 0; g < kGroups; ++g) {
    const auto scale = static_cast<float>(found.scale[g]);
    const ValueFit fit =
        fit_values(x + 32 * g, 32, spread, inverse_of(found.d * scale), kIq4Values);
    dot += scale * fit.dot;
    square += scale * scale * fit.square;
  }
  return square > 0 ? dot / square : 0.0F;
}

Found search_block(const float* x) noexcept {
  const float spread = kSpread * rms_of(x, 256);
  float wanted[kGroups];
  float extreme = 0;
  for (int g = 0; g < kGroups; ++g) {
    wanted[g] = search_value_scale(x + 32 * g, 32, spread, kIq4Values);
    if (std::fabs(wanted[g]) > std::fabs(extreme)) extreme = wanted[g];
  }
  // The largest scale may become any of the outermost numbers.
  Found best = pick(x, wanted, spread, block_scale(extreme / -32.0F));
  for (const float end : {-30.5F, -29.0F, -27.0F}) {
    const Found other = pick(x, wanted, spread, block_scale(extreme / end));
    if (other.error < best.error) best = other;
  }
  const Found again = pick(x, wanted, spread, block_scale(refit(x, best, spread)));
  return again.error < best.error ? again : best;
}

}  // namespace

void encode_iq4_xs(const float* src, void* dst, std::int64_t n) {
  auto* block = static_cast<BlockIQ4_XS*>(dst);
  for (std::int64_t i_block = 0; i_block < n / 256; ++i_block, ++block, src += 256) {
    const Found found = search_block(src);
    std::memset(block, 0, sizeof *block);
    block->d = f32_to_f16(found.d);
    for (int g = 0; g < kGroups; ++g) {
      const int scale = found.scale[g] + 32;
      block->scales_l[g / 2] |= static_cast<std::uint8_t>((scale & 15) << (4 * (g % 2)));
      block->scales_h = static_cast<std::uint16_t>(block->scales_h | (scale >> 4) << (2 * g));
      const float inverse = inverse_of(found.d * static_cast<float>(found.scale[g]));
      for (int k = 0; k < 16; ++k) {
        const int low = nearest_value(src[32 * g + k] * inverse, kIq4Values);
        const int high = nearest_value(src[32 * g + 16 + k] * inverse, kIq4Values);
        block->qs[16 * g + k] = static_cast<std::uint8_t>(low | high << 4);
      }
    }
  }
}

}  // namespace specdec
