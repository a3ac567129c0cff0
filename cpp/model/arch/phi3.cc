// Phi-3, Phi-3.5, Phi-4 and Phi-4-mini: llama with fused matrices, rope that turns the two halves
// of a part of each head and has other divisors for long contexts, and a window on all layers.
#include "model/arch/arch.h"

namespace specdec {

namespace {

constexpr const char* kOwnKeys[] = {"attention.sliding_window"};

void layer_slots(SlotTable& t) {
  const ModelConfig& c = t.config();
  t.norm(Part::kAttentionNorm, "attn_norm");
  t.qkv(Presence::kNever, /*fused_only=*/true);
  t.linear(Part::kAttentionOut, "attn_output", c.q_size(), c.hidden_size);
  t.norm(Part::kFfnNorm, "ffn_norm");
  t.fused_gated_ffn();
}

}  // namespace

const ArchSpec k_arch_phi3 = {
    .name = "phi3",
    .norm_kind = Norm::Kind::kRms,
    .rope_interleaved = false,
    .partial_rope = true,
    .long_rope = true,
    .own_keys = kOwnKeys,
    .read_layers = read_short_windows,
    .layer_slots = layer_slots,
};

}  // namespace specdec
