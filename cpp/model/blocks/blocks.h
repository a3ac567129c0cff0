// What layers are made of: each block reads a LayerSpec and issues operations of the backend.
#pragma once

#include "model/pass.h"

namespace specdec {

// Of heads that draft: [embedded token; feature] normed, each by itself.
void pair_rows(const LayerRun& run);
// hidden -> q, and k and v into the cache: of all rows.
void keys_and_values(const LayerRun& run);
// q -> attention, like what follows of the rows that matter.
void attend(const LayerRun& run);
// hidden -> attention, by way of the layer's state: of all rows.
void recur(const LayerRun& run);
// hidden -> ffn.
void feed_forward(const LayerRun& run);
// hidden += the mixture of experts of the rows that matter.
void add_experts(const LayerRun& run);
// dst += the expert that all rows use, of the input of the others.
void add_shared_expert(const LayerRun& run, const float* input, float* dst);
// hidden += W x + b, or the norm of that, which takes the place of q, k and v meanwhile.
void add_branch(const LayerRun& run, Part weight, Part post_norm, const float* x,
                std::int64_t x_stride);

// kNone where the layer has no such norm.
[[nodiscard]] Norm norm_of(const LayerRun& run, Part weight);

}  // namespace specdec
