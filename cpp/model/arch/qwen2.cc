// Qwen2 and Qwen2.5: llama with biases on q, k, v and rope that turns the two halves of a head.
#include "model/arch/arch.h"

namespace specdec {

const ArchSpec k_arch_qwen2 = {
    .name = "qwen2",
    .norm_kind = Norm::Kind::kRms,
    .activation = Activation::kSilu,
    .gated_ffn = true,
    .rope_interleaved = false,
    .partial_rope = false,
    .fused_qkv_only = false,
    .qkv_bias = Presence::kRequired,
    .attention_out_bias = Presence::kNever,
    .ffn_bias = Presence::kNever,
    .head_bias = Presence::kOptional,
    .rope_divisors = Presence::kNever,
    .read_extra = nullptr,
};

}  // namespace specdec
