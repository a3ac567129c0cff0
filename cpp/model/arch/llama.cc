// Llama 1, 2, 3, 3.2; also TinyLlama, SmolLM2 and Mistral without sliding window, which use its
// name. Rows of q and k are stored permuted, so rope turns neighbouring pairs. Llama 3 stretches
// its frequencies by the divisors in rope_freqs.weight.
#include "model/arch/arch.h"

namespace specdec {

namespace {

void layer_slots(SlotTable& t) { t.pre_norm_layer(Presence::kOptional, Presence::kOptional); }

}  // namespace

const ArchSpec k_arch_llama = {
    .name = "llama",
    .norm_kind = Norm::Kind::kRms,
    .rope_interleaved = true,
    .rope_divisors = Presence::kOptional,
    .layer_slots = layer_slots,
};

}  // namespace specdec
