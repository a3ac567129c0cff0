// Qwen2 and Qwen2.5: llama with biases on q, k, v and rope that turns the two halves of a head.
#include "model/arch/arch.h"

namespace specdec {

namespace {

constexpr const char* kOwnKeys[] = {"attention.sliding_window"};

void layer_slots(SlotTable& t) {
  const ModelConfig& c = t.config();
  t.norm(Part::kAttentionNorm, "attn_norm");
  t.qkv(Presence::kRequired);
  t.linear(Part::kAttentionOut, "attn_output", c.q_size(), c.hidden_size);
  t.norm(Part::kFfnNorm, "ffn_norm");
  t.gated_ffn();
}

}  // namespace

const ArchSpec k_arch_qwen2 = {
    .name = "qwen2",
    .norm_kind = Norm::Kind::kRms,
    .rope_interleaved = false,
    .head_bias = Presence::kOptional,
    .own_keys = kOwnKeys,
    .read_layers = read_short_windows,
    .layer_slots = layer_slots,
};

}  // namespace specdec
