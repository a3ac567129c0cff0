// What one layer does beside the shapes of its tensors; architectures fill it from the metadata.
#pragma once

#include "backend/backend.h"

namespace specdec {

struct LayerSpec {
  int rope = 0;         // of ModelConfig::ropes; -1: q and k are not rotated
  int window = 0;       // a row sees the last so many positions, itself among them; 0: all
  float score_cap = 0;  // scores are score_cap * tanh(score / score_cap); 0: as they are
  Activation activation = Activation::kSilu;
  bool gated_ffn = true;           // activation(gate x) * up x, else activation(up x)
  bool experts_sum_to_1 = true;    // what the chosen experts of a row count for
  bool norms_rows = false;         // norms of q and k are of whole rows, not head by head
  bool post_norms = false;         // norms of what is added to the residual
  bool parallel_residual = false;  // x + attention(norm1 x) + ffn(norm2 x)
};

}  // namespace specdec
