// Qwen3: as Qwen2 without biases; each head of q and k is normalised before rope.
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

const ArchSpec k_arch_qwen3 = {
    .name = "qwen3",
    .norm_kind = Norm::Kind::kRms,
    .rope_interleaved = false,
    .own_keys = kOwnKeys,
    .read_layers = read_short_windows,
    .layer_slots = layer_slots,
};

}  // namespace specdec
