// SmolLM3: llama whose every fourth layer does not rotate q and k.
#include "model/arch/arch.h"

namespace specdec {

namespace {

void read_layers(const HparamReader& /*hparams*/, ModelConfig& config) {
  for (std::size_t layer = 3; layer < config.layers.size(); layer += 4)
    config.layers[layer].rope = -1;
}

void layer_slots(SlotTable& t) { t.pre_norm_layer(Presence::kOptional, Presence::kNever); }

}  // namespace

const ArchSpec k_arch_smollm3 = {
    .name = "smollm3",
    .norm_kind = Norm::Kind::kRms,
    .rope_interleaved = true,
    .read_layers = read_layers,
    .layer_slots = layer_slots,
};

}  // namespace specdec
