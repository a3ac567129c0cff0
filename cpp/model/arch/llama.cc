// Llama 1, 2, 3, 3.2; also TinyLlama, SmolLM2, Mistral and Mixtral, a mixture of experts, which use
// its name; the first Mistral has a sliding window. Rows of q and k are stored permuted, so rope
// turns neighbouring pairs. Llama 3 stretches its frequencies by the divisors in rope_freqs.weight.
#include "model/arch/arch.h"

namespace specdec {

namespace {

constexpr const char* kOwnKeys[] = {"attention.sliding_window"};

void layer_slots(SlotTable& t) { t.pre_norm_layer(Presence::kOptional, Presence::kOptional); }

}  // namespace

const ArchSpec k_arch_llama = {
    .name = "llama",
    .norm_kind = Norm::Kind::kRms,
    .rope_interleaved = true,
    .experts = true,
    .rope_divisors = Presence::kOptional,
    .own_keys = kOwnKeys,
    .read_layers = read_short_windows,
    .layer_slots = layer_slots,
};

}  // namespace specdec
