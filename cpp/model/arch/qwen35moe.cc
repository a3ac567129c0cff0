// Qwen3.5 with experts, one of them shared.
#include "model/arch/arch.h"

namespace specdec {

namespace {

constexpr const char* kOwnKeys[] = {"nextn_predict_layers", "expert_shared_feed_forward_length"};

void read_layers(const HparamReader& hparams, ModelConfig& config) {
  read_delta_layers(hparams, config, /*grouped=*/false);
  read_shared_expert(hparams, config, config.intermediate_size);
}

void read_next_layers(const HparamReader& hparams, ModelConfig& config) {
  read_next_delta_layers(hparams, config);
  read_shared_expert(hparams, config, config.intermediate_size);
}

}  // namespace

const ArchSpec k_arch_qwen35moe = {
    .name = "qwen35moe",
    .norm_kind = Norm::Kind::kRms,
    .rope_interleaved = false,
    .partial_rope = true,
    .experts = true,
    .own_keys = kOwnKeys,
    .read_layers = read_layers,
    .layer_slots = delta_layer_slots,
    .read_next_layers = read_next_layers,
};

}  // namespace specdec
