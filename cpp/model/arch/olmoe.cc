// OLMoE: norms of whole rows of q and k, and experts whose weights are shares of all.
#include "model/arch/arch.h"

namespace specdec {

namespace {

void layer_slots(SlotTable& t) {
  const ModelConfig& c = t.config();
  t.pre_norm_layer(Presence::kNever, Presence::kNever);
  t.vector(Part::kQNorm, "attn_q_norm.weight", c.q_size());
  t.vector(Part::kKNorm, "attn_k_norm.weight", c.kv_size());
}

}  // namespace

const ArchSpec k_arch_olmoe = {
    .name = "olmoe",
    .norm_kind = Norm::Kind::kRms,
    .rope_interleaved = false,
    .experts = true,
    .layer = {.experts_sum_to_1 = false, .norms_rows = true},
    .layer_slots = layer_slots,
};

}  // namespace specdec
