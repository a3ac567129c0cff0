// Gemma 3, text: scaled embeddings, norms of q and k head by head, norms before and after each
// branch, tanh GELU, and a window with a rope of its own on most layers.
#include "model/arch/arch.h"

namespace specdec {

namespace {

constexpr const char* kOwnKeys[] = {"attention.sliding_window", "final_logit_softcapping"};
constexpr int kLayersOf27B = 62;

void read_layers(const HparamReader& hparams, ModelConfig& config) {
  read_gemma_scales(config, kLayersOf27B);
  config.logit_cap = read_soft_cap(hparams, "final_logit_softcapping", 0);
  read_windows(hparams, config, 6);
  RopeConfig local;
  local.theta = hparams.get_float("rope.freq_base_swa", 10000.0, 1.001, 1e30);
  local.n_rot = config.n_rot();
  local.interleaved = config.ropes[0].interleaved;
  config.ropes.push_back(local);
  for (LayerSpec& layer : config.layers) layer.rope = layer.window > 0 ? 1 : 0;
}

void layer_slots(SlotTable& t) { gemma_layer_slots(t, Presence::kRequired); }

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
