// Searches for super-blocks: 256 weights in groups, whose scales are small whole numbers times one
// half-precision scale. Used by the encoders of the K formats.
#pragma once

#include "quant/search.h"

namespace specdec::search {

// ---------------------------------------------------------------- y = d scale q

template <int kGroups, int kN>
struct ScaleBlock {
  float d = 0;  // exact in half precision
  float error = 0;
  int scale[kGroups] = {};
};

// Scales run from -n_scales to n_scales - 1. `reach`: how far from the nearest one to look.
template <int kGroups, int kN>
[[nodiscard]] ScaleBlock<kGroups, kN> pick_scales(const Group<kN>* groups, const float* wanted,
                                                  float d, int n_scales, int reach,
                                                  Range range) noexcept {
  ScaleBlock<kGroups, kN> block;
  block.d = d;
  for (int g = 0; g < kGroups; ++g) {
    if (d == 0.0F) {
      block.error += groups[g].sum_xx;
      continue;
    }
    const float ratio =
        std::clamp(wanted[g] / d, static_cast<float>(-n_scales), static_cast<float>(n_scales - 1));
    const int middle = nearest_int(ratio);
    float best = groups[g].sum_xx;  // of scale 0
    for (int scale = std::max(middle - reach, -n_scales);
         scale <= std::min(middle + reach, n_scales - 1); ++scale) {
      const float error = scale_error(groups[g], d * static_cast<float>(scale), range);
      if (error < best) {
        best = error;
        block.scale[g] = scale;
      }
    }
    block.error += best;
  }
  return block;
}

// The best d for the codes that the block's scales give.
template <int kGroups, int kN>
[[nodiscard]] float refit_scale(const Group<kN>* groups, const ScaleBlock<kGroups, kN>& block,
                                Range range) noexcept {
  float dot = 0;
  float square = 0;
  for (int g = 0; g < kGroups; ++g) {
    const auto scale = static_cast<float>(block.scale[g]);
    const float inverse = inverse_of(block.d * scale);
    Floats xq = {};
    Floats qq = {};
    for (int p = 0; p < groups[g].kParts; ++p) {
      const Floats q = nearest(groups[g].x[p] * inverse, range);
      const Floats wq = groups[g].w[p] * q;
      xq += groups[g].x[p] * wq;
      qq += wq * q;
    }
    dot += scale * sum_of(xq);
    square += scale * scale * sum_of(qq);
  }
  return square > 0 ? dot / square : 0.0F;
}

template <int kGroups, int kN>
[[nodiscard]] ScaleBlock<kGroups, kN> search_scales(const Group<kN>* groups, Range range,
                                                    int n_scales, const Candidates& candidates,
                                                    int reach) noexcept {
  float wanted[kGroups];
  float extreme = 0;
  for (int g = 0; g < kGroups; ++g) {
    wanted[g] = search_scale(groups[g], range, candidates);
    if (std::fabs(wanted[g]) > std::fabs(extreme)) extreme = wanted[g];
  }
  const auto block_at = [&](float d) {
    return pick_scales<kGroups>(groups, wanted, block_scale(d), n_scales, reach, range);
  };
  // The largest scale may become any of the outermost numbers.
  ScaleBlock<kGroups, kN> best = block_at(extreme / static_cast<float>(-n_scales));
  const float inward = static_cast<float>(n_scales) * (n_scales > 64 ? 0.97F : 0.94F);
  const ScaleBlock<kGroups, kN> other = block_at(extreme / -inward);
  if (other.error < best.error) best = other;
  for (int i = 0; i < 2; ++i) {
    const float d = block_scale(refit_scale(groups, best, range));
    if (d == best.d) break;
    const ScaleBlock<kGroups, kN> again = block_at(d);
    if (!(again.error < best.error)) break;
    best = again;
  }
  return best;
}

// ---------------------------------------------------------------- y = d scale q - dmin min

template <int kGroups, int kN>
struct LineBlock {
  float d = 0;     // exact in half precision
  float dmin = 0;  // exact in half precision
  float error = 0;
  int scale[kGroups] = {};
  int min[kGroups] = {};
};

// The best offset for the codes that this scale and offset give.
template <int kN>
[[nodiscard]] float refit_offset(const Group<kN>& group, float scale, float offset,
                                 Range range) noexcept {
  const float inverse = inverse_of(scale);
  Floats sum = {};
  for (int p = 0; p < group.kParts; ++p) {
    sum += group.w[p] * nearest((group.x[p] - offset) * inverse, range);
  }
  return group.sum_w > 0 ? (group.sum_x - scale * sum_of(sum)) / group.sum_w : 0.0F;
}

// Scales and mins run from 0 to `most`.
template <int kGroups, int kN>
[[nodiscard]] LineBlock<kGroups, kN> pick_lines(const Group<kN>* groups, const LineFit* wanted,
                                                float d, float dmin, int most, int reach,
                                                Range range) noexcept {
  LineBlock<kGroups, kN> block;
  block.d = d;
  block.dmin = dmin;
  const auto whole = [most](float v) {
    return nearest_int(std::clamp(v, 0.0F, static_cast<float>(most)));
  };
  for (int g = 0; g < kGroups; ++g) {
    const Group<kN>& group = groups[g];
    const int middle = d > 0 ? whole(wanted[g].scale / d) : 0;
    float best = INFINITY;
    for (int scale = std::max(middle - reach, 0); scale <= std::min(middle + reach, most);
         ++scale) {
      const float s = d * static_cast<float>(scale);
      const float offset = refit_offset(group, s, wanted[g].offset, range);
      const int centre = dmin > 0 ? whole(-offset / dmin) : 0;
      for (int min = std::max(centre - 1, 0); min <= std::min(centre + 1, most); ++min) {
        const float error = line_error(group, s, -dmin * static_cast<float>(min), range);
        if (error < best) {
          best = error;
          block.scale[g] = scale;
          block.min[g] = min;
        }
      }
    }
    block.error += best;
  }
  return block;
}

// The best d and dmin for the codes that the block's scales and mins give.
template <int kGroups, int kN>
void refit_lines(const Group<kN>* groups, const LineBlock<kGroups, kN>& block, Range range,
                 float* d, float* dmin) noexcept {
  float aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;  // a = scale q, b = -min
  for (int g = 0; g < kGroups; ++g) {
    const auto scale = static_cast<float>(block.scale[g]);
    const auto min = static_cast<float>(block.min[g]);
    const float inverse = inverse_of(block.d * scale);
    const float offset = -block.dmin * min;
    Floats sq = {};
    Floats sqq = {};
    Floats sqx = {};
    for (int p = 0; p < groups[g].kParts; ++p) {
      const Floats q = nearest((groups[g].x[p] - offset) * inverse, range);
      const Floats wq = groups[g].w[p] * q;
      sq += wq;
      sqq += wq * q;
      sqx += wq * groups[g].x[p];
    }
    aa += scale * scale * sum_of(sqq);
    ab -= scale * min * sum_of(sq);
    bb += min * min * groups[g].sum_w;
    ax += scale * sum_of(sqx);
    bx -= min * groups[g].sum_x;
  }
  const float determinant = aa * bb - ab * ab;
  if (determinant > 1e-6F * aa * bb) {
    *d = (ax * bb - bx * ab) / determinant;
    *dmin = (bx * aa - ax * ab) / determinant;
  } else if (aa > 0) {
    *d = ax / aa;
  }
}

template <int kGroups, int kN>
[[nodiscard]] LineBlock<kGroups, kN> search_lines(const Group<kN>* groups, Range range, int most,
                                                  const Stretches& stretches, int reach) noexcept {
  LineFit wanted[kGroups];
  float largest_scale = 0;
  float largest_min = 0;
  for (int g = 0; g < kGroups; ++g) {
    wanted[g] = search_line(groups[g], range, Offset::kNotPositive, stretches);
    largest_scale = std::max(largest_scale, wanted[g].scale);
    largest_min = std::max(largest_min, -wanted[g].offset);
  }
  float d = largest_scale / static_cast<float>(most);
  float dmin = largest_min / static_cast<float>(most);
  LineBlock<kGroups, kN> best =
      pick_lines<kGroups>(groups, wanted, block_scale(d), block_scale(dmin), most, reach, range);
  for (int i = 0; i < 2; ++i) {
    refit_lines(groups, best, range, &d, &dmin);
    d = block_scale(d);
    dmin = block_scale(dmin);
    if ((d == best.d && dmin == best.dmin) || !(d >= 0) || !(dmin >= 0)) break;
    const LineBlock<kGroups, kN> again =
        pick_lines<kGroups>(groups, wanted, d, dmin, most, reach, range);
    if (!(again.error < best.error)) break;
    best = again;
  }
  return best;
}

}  // namespace specdec::search
