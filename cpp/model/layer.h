// What one layer does beside the shapes of its tensors; architectures fill it from the metadata.
#pragma once

#include "backend/backend.h"

namespace specdec {

struct LayerSpec {
  bool rope = true;  // false: q and k are not rotated
  Activation activation = Activation::kSilu;
  bool gated_ffn = true;           // activation(gate x) * up x, else activation(up x)
  bool parallel_residual = false;  // x + attention(norm1 x) + ffn(norm2 x)
};

}  // namespace specdec
