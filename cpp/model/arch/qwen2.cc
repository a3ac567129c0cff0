// Qwen2 and Qwen2.5: llama with biases on q, k, v and rope that turns the two halves of a head.
#include "model/arch/arch.h"

namespace specdec {

namespace {

constexpr const char* kOwnKeys[] = {"attention.sliding_window"};

void layer_slots(SlotTable& t) { t.pre_norm_layer(Presence::kRequired, Presence::kNever); }

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
