// Gemma 2: scaled embeddings, norms before and after each branch, tanh GELU, soft caps of scores
// and logits, and a window on every second layer.
#include "model/arch/arch.h"

namespace specdec {

namespace {

constexpr const char* kOwnKeys[] = {"attention.sliding_window", "attn_logit_softcapping",
                                    "final_logit_softcapping"};
constexpr int kLayersOf27B = 46;

void read_layers(const HparamReader& hparams, ModelConfig& config) {
  read_gemma_scales(config, kLayersOf27B);
  read_windows(hparams, config, 2, 4096);
  config.logit_cap = read_soft_cap(hparams, "final_logit_softcapping", 30);
  const float cap = read_soft_cap(hparams, "attn_logit_softcapping", 50);
  for (LayerSpec& layer : config.layers) layer.score_cap = cap;
}

void layer_slots(SlotTable& t) { gemma_layer_slots(t, Presence::kNever); }

}  // namespace

const ArchSpec k_arch_gemma2 = {
    .name = "gemma2",
    .norm_kind = Norm::Kind::kRms,
    .rope_interleaved = false,
    .own_keys = kOwnKeys,
    .layer = {.activation = Activation::kGeluTanh, .post_norms = true},
    .read_layers = read_layers,
    .layer_slots = layer_slots,
};

}  // namespace specdec
