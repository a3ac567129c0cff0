// Llama 1, 2, 3, 3.2; also TinyLlama, SmolLM2 and Mistral without sliding window, which use its
// name. Rows of q and k are stored permuted, so rope turns neighbouring pairs. Llama 3 stretches
// its frequencies by the divisors in rope_freqs.weight.
#include "model/arch/arch.h"

namespace specdec {

const ArchSpec k_arch_llama = {
    .name = "llama",
    .norm_kind = Norm::Kind::kRms,
    .activation = Activation::kSilu,
    .gated_ffn = true,
    .rope_interleaved = true,
    .partial_rope = false,
    .fused_qkv_only = false,
    .qkv_bias = Presence::kOptional,
    .attention_out_bias = Presence::kOptional,
    .ffn_bias = Presence::kNever,
    .head_bias = Presence::kNever,
    .rope_divisors = Presence::kOptional,
    .read_extra = nullptr,
};

}  // namespace specdec
