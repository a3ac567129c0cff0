// GPT-NeoX and Pythia: layer norm, one fused [Q; K; V] matrix, biases everywhere but on the head,
// rope on a part of each head, exact (erf) GELU, attention and feed-forward side by side on the
// residual.
#include "model/arch/arch.h"

namespace specdec {

namespace {

void read_layers(const HparamReader& hparams, ModelConfig& config) {
  const bool parallel = hparams.get_bool("use_parallel_residual", true);
  for (LayerSpec& layer : config.layers) layer.parallel_residual = parallel;
}

void layer_slots(SlotTable& t) {
  const ModelConfig& c = t.config();
  t.norm(Part::kAttentionNorm, "attn_norm");
  t.qkv(Presence::kRequired, /*fused_only=*/true);
  t.linear(Part::kAttentionOut, "attn_output", c.q_size(), c.hidden_size, Presence::kRequired);
  t.norm(Part::kFfnNorm, "ffn_norm");
  t.plain_ffn(Presence::kRequired);
}

}  // namespace

const ArchSpec k_arch_gptneox = {
    .name = "gptneox",
    .norm_kind = Norm::Kind::kLayer,
    .rope_interleaved = false,
    .partial_rope = true,
    .layer = {.activation = Activation::kGeluErf, .gated_ffn = false},
    .read_layers = read_layers,
    .layer_slots = layer_slots,
};

}  // namespace specdec
