// Qwen3.5, dense.
#include "model/arch/arch.h"

namespace specdec {

namespace {

constexpr const char* kOwnKeys[] = {"nextn_predict_layers"};

void read_layers(const HparamReader& hparams, ModelConfig& config) {
  read_delta_layers(hparams, config, /*grouped=*/false);
}

}  // namespace

const ArchSpec k_arch_qwen35 = {
    .name = "qwen35",
    .norm_kind = Norm::Kind::kRms,
    .rope_interleaved = false,
    .partial_rope = true,
    .own_keys = kOwnKeys,
    .read_layers = read_layers,
    .layer_slots = delta_layer_slots,
    .read_next_layers = read_next_delta_layers,
};

}  // namespace specdec
