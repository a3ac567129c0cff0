// Rotations of q and k by position: what a file says about them, and the angles that follow.
#pragma once

#include <vector>

#include "gguf/reader.h"

namespace specdec {

struct ArchSpec;
class HparamReader;

enum class RopeScaling { kNone, kLinear, kYarn, kLongRope };

struct RopeConfig {
  double theta = 10000.0;
  int n_rot = 0;             // rotated dimensions, even, 2 <= n_rot <= head_dim
  bool interleaved = false;  // pairs (2i, 2i+1) instead of (i, i + n_rot/2)
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;       // positions are divided by it (linear, yarn)
  double attn_factor = 1.0;  // cos and sin are multiplied with it, beside yarn's own factor
  int original_context = 0;  // before scaling
  double beta_fast = 32.0;   // yarn only
  double beta_slow = 1.0;
  bool truncate = true;         // yarn: the pairs between which frequencies blend are whole ones
  double magnitude = 0;         // yarn's own factor of cos and sin; 0: 1 + 0.1 ln(factor)
  std::vector<float> divisors;  // [n_rot/2] each frequency is divided by, or empty (rope_freqs)
  // Likewise in sequences whose context may be longer than original_context (longrope).
  std::vector<float> long_divisors;
};

void read_rope(const HparamReader& hparams, const ArchSpec& spec, int head_dim, int context,
               RopeConfig& rope);
// What tensors say; check_slots has checked their shapes.
void read_rope_divisors(const GgufFile& file, RopeConfig& rope);

// Angle per position of each rotated pair, [n_rot/2], and what cos and sin are multiplied with.
struct RopeFrequencies {
  std::vector<double> angles;
  double magnitude = 1.0;
};
// Longrope's divisors are those of the context that a sequence may grow to, n_ctx, from its first
// token on: were they those of its length so far, keys that are cached would have been rotated
// otherwise than the queries that look at them, and rows would depend on how they are fed.
[[nodiscard]] RopeFrequencies rope_frequencies(const RopeConfig& rope, bool long_context = false);

}  // namespace specdec
