// GPT-NeoX and Pythia: layer norm, one fused [Q; K; V] matrix, biases everywhere but on the head,
// rope on a part of each head, exact (erf) GELU, attention and feed-forward side by side on the
// residual.
#include "model/arch/arch.h"

namespace specdec {

namespace {

void read_extra(const HparamReader& hparams, ModelConfig& config) {
  config.parallel_residual = hparams.get_bool("use_parallel_residual", true);
}

}  // namespace

const ArchSpec k_arch_gptneox = {
    .name = "gptneox",
    .norm_kind = Norm::Kind::kLayer,
    .activation = Activation::kGeluErf,
    .gated_ffn = false,
    .rope_interleaved = false,
    .partial_rope = true,
    .fused_qkv_only = true,
    .qkv_bias = Presence::kRequired,
    .attention_out_bias = Presence::kRequired,
    .ffn_bias = Presence::kRequired,
    .head_bias = Presence::kNever,
    .rope_divisors = Presence::kNever,
    .read_extra = read_extra,
};

}  // namespace specdec
