// Gemma 3, text: scaled embeddings, norms of q and k head by head, norms before and after each
// branch, tanh GELU, and a window with a rope of its own on most layers.
#include <cmath>

#include "model/arch/arch.h"

namespace specdec {

namespace {

constexpr const char* kOwnKeys[] = {"attention.sliding_window"};
constexpr int kLayersOf27B = 62;

void read_layers(const HparamReader& hparams, ModelConfig& config) {
  config.embedding_scale = std::sqrt(static_cast<float>(config.hidden_size));
  // Files do not say it: the largest of the family scales by what heads share of the width.
  if (config.n_layers == kLayersOf27B) {
    config.attention_scale = 1.0F / std::sqrt(static_cast<float>(config.hidden_size) /
                                              static_cast<float>(config.n_heads));
  }
  read_windows(hparams, config, 6);
  RopeConfig local;
  local.theta = hparams.get_float("rope.freq_base_swa", 10000.0, 1.001, 1e30);
  local.n_rot = config.n_rot();
  local.interleaved = config.ropes[0].interleaved;
  config.ropes.push_back(local);
  for (LayerSpec& layer : config.layers) layer.rope = layer.window > 0 ? 1 : 0;
}

void layer_slots(SlotTable& t) {
  const ModelConfig& c = t.config();
  t.norm(Part::kAttentionNorm, "attn_norm");
  t.qkv(Presence::kNever);
  t.vector(Part::kQNorm, "attn_q_norm.weight", c.head_dim);
  t.vector(Part::kKNorm, "attn_k_norm.weight", c.head_dim);
  t.linear(Part::kAttentionOut, "attn_output", c.q_size(), c.hidden_size);
  t.norm(Part::kAttentionPostNorm, "post_attention_norm");
  t.norm(Part::kFfnNorm, "ffn_norm");
  t.gated_ffn();
  t.norm(Part::kFfnPostNorm, "post_ffw_norm");
}

}  // namespace

const ArchSpec k_arch_gemma3 = {
    .name = "gemma3",
    .norm_kind = Norm::Kind::kRms,
    .rope_interleaved = false,
    .own_keys = kOwnKeys,
    .layer = {.activation = Activation::kGeluTanh, .post_norms = true},
    .read_layers = read_layers,
    .layer_slots = layer_slots,
};

}  // namespace specdec
