// Granite 3: llama with scales of the embedding, of what layers add, of scores and of logits.
#include "model/arch/arch.h"

namespace specdec {

namespace {

constexpr const char* kOwnKeys[] = {"attention.scale", "embedding_scale", "residual_scale",
                                    "logit_scale"};

// 0 and nothing: 1.
double read_scale(const HparamReader& hparams, const char* suffix) {
  const double scale = hparams.get_float(suffix, 0, 0, 1e6);
  if (scale != 0 && scale < 1e-6)
    hparams.fail(suffix, "0, or at least 1e-06", std::to_string(scale));
  return scale == 0 ? 1 : scale;
}

}  // namespace

// The residual is kept divided by residual_scale: what layers add then needs no scale, and norms
// give the same with an epsilon divided by its square.
void read_granite_scales(const HparamReader& hparams, ModelConfig& config) {
  const double residual = read_scale(hparams, "residual_scale");
  config.embedding_scale = static_cast<float>(read_scale(hparams, "embedding_scale") / residual);
  config.norm_epsilon =
      static_cast<float>(static_cast<double>(config.norm_epsilon) / (residual * residual));
  config.logit_scale = static_cast<float>(1 / read_scale(hparams, "logit_scale"));
  if (hparams.get_bool("rope.scaling.finetuned", true)) return;
  for (LayerSpec& layer : config.layers) layer.rope = -1;
}

namespace {

void layer_slots(SlotTable& t) { t.pre_norm_layer(Presence::kOptional, Presence::kOptional); }

}  // namespace

const ArchSpec k_arch_granite = {
    .name = "granite",
    .norm_kind = Norm::Kind::kRms,
    .rope_interleaved = true,
    .own_keys = kOwnKeys,
    .read_layers = read_granite_scales,
    .layer_slots = layer_slots,
};

}  // namespace specdec
