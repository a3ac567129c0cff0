// OLMo 2 and 3: no norms before the branches but after them, and of whole rows of q and k. OLMo 3
// has windows, on whose layers rope is not scaled.
#include "model/arch/arch.h"

namespace specdec {

namespace {

constexpr const char* kOwnKeys[] = {"attention.sliding_window"};

void read_layers(const HparamReader& hparams, ModelConfig& config) {
  read_windows(hparams, config, 4);
  RopeConfig local;
  local.theta = config.ropes[0].theta;
  local.n_rot = config.n_rot();
  local.interleaved = config.ropes[0].interleaved;
  const bool scaled = config.ropes[0].scaling != RopeScaling::kNone;
  for (LayerSpec& layer : config.layers) layer.rope = scaled && layer.window > 0 ? 1 : 0;
  if (scaled) config.ropes.push_back(local);
}

void layer_slots(SlotTable& t) {
  const ModelConfig& c = t.config();
  t.qkv(Presence::kNever);
  t.vector(Part::kQNorm, "attn_q_norm.weight", c.q_size());
  t.vector(Part::kKNorm, "attn_k_norm.weight", c.kv_size());
  t.linear(Part::kAttentionOut, "attn_output", c.q_size(), c.hidden_size);
  t.norm(Part::kAttentionPostNorm, "post_attention_norm");
  t.gated_ffn();
  t.norm(Part::kFfnPostNorm, "post_ffw_norm");
}

}  // namespace

const ArchSpec k_arch_olmo2 = {
    .name = "olmo2",
    .norm_kind = Norm::Kind::kRms,
    .rope_interleaved = false,
    .own_keys = kOwnKeys,
    .layer = {.norms_rows = true, .post_norms = true},
    .read_layers = read_layers,
    .layer_slots = layer_slots,
};

}  // namespace specdec
