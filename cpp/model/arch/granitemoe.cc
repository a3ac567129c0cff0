// Granite 3 with experts, and perhaps one that all rows use, with the weight 1.
#include "model/arch/arch.h"

namespace specdec {

namespace {

constexpr const char* kOwnKeys[] = {"attention.scale", "embedding_scale", "residual_scale",
                                    "logit_scale", "expert_shared_feed_forward_length"};

void read_layers(const HparamReader& hparams, ModelConfig& config) {
  read_granite_scales(hparams, config);
  read_shared_expert(hparams, config, 0);
}

void layer_slots(SlotTable& t) {
  t.pre_norm_layer(Presence::kOptional, Presence::kOptional);
  if (t.config().shared_expert_size > 0) t.shared_expert(Presence::kNever);
}

}  // namespace

const ArchSpec k_arch_granitemoe = {
    .name = "granitemoe",
    .norm_kind = Norm::Kind::kRms,
    .rope_interleaved = true,
    .experts = true,
    .own_keys = kOwnKeys,
    .read_layers = read_layers,
    .layer_slots = layer_slots,
};

}  // namespace specdec
