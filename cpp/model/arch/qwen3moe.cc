// Qwen3 with experts: the attention of Qwen3, and a mixture on every layer.
#include "model/arch/arch.h"

namespace specdec {

namespace {

constexpr const char* kOwnKeys[] = {"attention.sliding_window"};

void layer_slots(SlotTable& t) {
  const ModelConfig& c = t.config();
  t.pre_norm_layer(Presence::kNever, Presence::kNever);
  t.vector(Part::kQNorm, "attn_q_norm.weight", c.head_dim);
  t.vector(Part::kKNorm, "attn_k_norm.weight", c.head_dim);
}

}  // namespace

const ArchSpec k_arch_qwen3moe = {
    .name = "qwen3moe",
    .norm_kind = Norm::Kind::kRms,
    .rope_interleaved = false,
    .experts = true,
    .own_keys = kOwnKeys,
    .read_layers = read_short_windows,
    .layer_slots = layer_slots,
};

}  // namespace specdec
