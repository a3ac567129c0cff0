// EAGLE-3: a head that drafts for a target, as llama.cpp writes them. One llama layer whose q, k
// and v read two normed rows side by side; rows of q and k are stored permuted, so rope turns
// neighbouring pairs whatever the target does.
#include "model/arch/arch.h"

namespace specdec {

namespace {

void layer_slots(SlotTable& t) {
  const ModelConfig& c = t.config();
  t.norm(Part::kAttentionNorm, "attn_norm");
  t.norm(Part::kFeatureNorm, "attn_norm_2");
  const std::int64_t n_in = 2 * std::int64_t{c.hidden_size};
  t.linear(Part::kQ, "attn_q", n_in, c.q_size(), Presence::kOptional);
  t.linear(Part::kK, "attn_k", n_in, c.kv_size(), Presence::kOptional);
  t.linear(Part::kV, "attn_v", n_in, c.kv_size(), Presence::kOptional);
  t.linear(Part::kAttentionOut, "attn_output", c.q_size(), c.hidden_size);
  t.norm(Part::kFfnNorm, "ffn_norm");
  t.gated_ffn();
}

void model_slots(SlotTable& t) {
  const ModelConfig& c = t.config();
  const DraftHeadConfig& head = c.draft_head;
  t.linear(Part::kFuse, "fc", head.tap_size(), c.hidden_size);
  if (head.norm_before_fc) t.vector(Part::kFuseNorm, "enc.output_norm.weight", head.tap_size());
  t.ids(Part::kTargetIds, "d2t", c.n_head_tokens);
}

}  // namespace

const ArchSpec k_arch_eagle3 = {
    .name = "eagle3",
    .norm_kind = Norm::Kind::kRms,
    .rope_interleaved = true,
    .rope_divisors = Presence::kOptional,
    .draft_head = true,
    .layer_slots = layer_slots,
    .model_slots = model_slots,
};

}  // namespace specdec
