// What sets one architecture apart: which tensors a file must, may and may not hold, and the recipe
// that the one forward pass follows. Each arch/<name>.cc defines one ArchSpec; arch.def lists them.
#pragma once

#include "model/config.h"
#include "model/hparams.h"

namespace specdec {

enum class Presence { kNever, kOptional, kRequired };

struct ArchSpec {
  const char* name;  // general.architecture
  Norm::Kind norm_kind;
  Activation activation;
  bool gated_ffn;
  bool rope_interleaved;
  bool partial_rope;    // rope may turn a part of each head only
  bool fused_qkv_only;  // attn_q, attn_k, attn_v are not accepted
  Presence qkv_bias;
  Presence attention_out_bias;
  Presence ffn_bias;  // ffn_up and ffn_down; gated networks take none
  Presence head_bias;
  Presence rope_divisors;  // rope_freqs.weight
  // Reads what only this architecture has, or nullptr.
  void (*read_extra)(const HparamReader& hparams, ModelConfig& config);
};

// nullptr when it is not one of ours.
[[nodiscard]] const ArchSpec* find_arch(std::string_view name) noexcept;

#define SPECDEC_ARCH(name) extern const ArchSpec k_arch_##name;
#include "model/arch/arch.def"

}  // namespace specdec
