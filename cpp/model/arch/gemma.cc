// What Gemma 2 and 3 have in common.
#include <cmath>
#include <string>

#include "model/arch/arch.h"

namespace specdec {

float read_soft_cap(const HparamReader& hparams, const char* suffix, double usual) {
  const double cap = hparams.get_float(suffix, usual, 0, 1e6);
  if (cap != 0 && cap < 1e-6) hparams.fail(suffix, "0, or at least 1e-06", std::to_string(cap));
  return static_cast<float>(cap);
}

void read_gemma_scales(ModelConfig& config, int layers_of_largest) {
  config.embedding_scale = std::sqrt(static_cast<float>(config.hidden_size));
  if (config.n_layers != layers_of_largest) return;
  config.attention_scale =
      1.0F / std::sqrt(static_cast<float>(config.hidden_size) / static_cast<float>(config.n_heads));
}

void gemma_layer_slots(SlotTable& t, Presence head_norms) {
  const ModelConfig& c = t.config();
  t.norm(Part::kAttentionNorm, "attn_norm");
  t.qkv(Presence::kNever);
  t.vector(Part::kQNorm, "attn_q_norm.weight", c.head_dim, head_norms);
  t.vector(Part::kKNorm, "attn_k_norm.weight", c.head_dim, head_norms);
  t.linear(Part::kAttentionOut, "attn_output", c.q_size(), c.hidden_size);
  t.norm(Part::kAttentionPostNorm, "post_attention_norm");
  t.norm(Part::kFfnNorm, "ffn_norm");
  t.gated_ffn();
  t.norm(Part::kFfnPostNorm, "post_ffw_norm");
}

}  // namespace specdec
