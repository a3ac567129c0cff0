// gpt-oss: sinks in attention, a window on every second layer, biases everywhere, and experts with
// a clamped SwiGLU. Its YaRN does not truncate, as its checkpoints say; files have no key for it.
#include "model/arch/arch.h"

namespace specdec {

namespace {

constexpr const char* kOwnKeys[] = {"attention.sliding_window"};

void read_layers(const HparamReader& hparams, ModelConfig& config) {
  read_windows(hparams, config, 2);
}

void layer_slots(SlotTable& t) {
  const ModelConfig& c = t.config();
  t.norm(Part::kAttentionNorm, "attn_norm");
  t.qkv(Presence::kRequired);
  t.vector(Part::kAttentionSinks, "attn_sinks.weight", c.n_heads);
  t.linear(Part::kAttentionOut, "attn_output", c.q_size(), c.hidden_size, Presence::kRequired);
  t.norm(Part::kFfnNorm, "post_attention_norm");
  t.experts(Presence::kRequired);
}

}  // namespace

const ArchSpec k_arch_gpt_oss = {
    .name = "gpt-oss",
    .norm_kind = Norm::Kind::kRms,
    .rope_interleaved = false,
    .experts = true,
    .yarn_truncates = false,
    .own_keys = kOwnKeys,
    .layer = {.activation = Activation::kClampedSwiglu},
    .read_layers = read_layers,
    .layer_slots = layer_slots,
};

}  // namespace specdec
