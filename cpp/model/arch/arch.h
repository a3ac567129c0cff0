// What sets one architecture apart: the slots of its tensors, and what its layers do, read from the
// metadata. Each arch/<name>.cc defines one ArchSpec; arch.def lists them.
#pragma once

#include <algorithm>
#include <span>
#include <string_view>

#include "model/config.h"
#include "model/hparams.h"
#include "model/slots.h"

namespace specdec {

struct ArchSpec {
  const char* name;  // general.architecture
  Norm::Kind norm_kind;
  bool rope_interleaved;
  bool partial_rope = false;  // rope may turn a part of each head only
  bool experts = false;       // layers may be mixtures
  Presence head_bias = Presence::kNever;
  Presence rope_divisors = Presence::kNever;  // rope_freqs.weight
  bool yarn_truncates = true;                 // where files do not say it
  bool long_rope = false;   // rope_factors_short.weight and rope_factors_long.weight
  bool draft_head = false;  // it drafts for a target, and says nothing by itself
  std::span<const char* const> own_keys = {};  // that mean nothing, or harm, elsewhere
  LayerSpec layer = {};                        // of every layer, before read_layers
  // Changes config.layers from the metadata; nullptr: all are alike.
  void (*read_layers)(const HparamReader& hparams, ModelConfig& config) = nullptr;
  void (*layer_slots)(SlotTable& table);
  // Likewise of a block that predicts further tokens; nullptr: such files are not run.
  void (*read_next_layers)(const HparamReader& hparams, ModelConfig& config) = nullptr;
  // Of the model, beside what all have; nullptr: none.
  void (*model_slots)(SlotTable& table) = nullptr;

  [[nodiscard]] bool reads(std::string_view suffix) const {
    return std::any_of(own_keys.begin(), own_keys.end(),
                       [&](const char* key) { return suffix == key; });
  }
};

// Windows of the layers: of attention.sliding_window positions, where sliding_window_pattern says;
// without it on all but every `period`th. `usual`: where a file does not say how long.
void read_windows(const HparamReader& hparams, ModelConfig& config, int period, int usual = 0);
// On all layers where nothing else is said, unless no row of the context is further back.
void read_short_windows(const HparamReader& hparams, ModelConfig& config);

// 0: none.
[[nodiscard]] float read_soft_cap(const HparamReader& hparams, const char* suffix, double usual);
// What Gemma 2 and 3 have: norms before and after both branches, tanh GELU.
void gemma_layer_slots(SlotTable& table, Presence head_norms);
// Their scales; the largest of each family, known by its layers, scales scores by what heads share
// of the width: files do not say it.
void read_gemma_scales(ModelConfig& config, int layers_of_largest);

// Granite's scales, and their keys.
void read_granite_scales(const HparamReader& hparams, ModelConfig& config);
// Layers of a gated delta rule among those of attention; `grouped`: as in RecurrentShape.
void read_delta_layers(const HparamReader& hparams, ModelConfig& config, bool grouped);
void delta_layer_slots(SlotTable& table);
// Blocks behind those have attention.
void read_next_delta_layers(const HparamReader& hparams, ModelConfig& config);
// Of mixtures; `usual`: its size where a file does not say it, 0: it has none then.
void read_shared_expert(const HparamReader& hparams, ModelConfig& config, int usual);

// nullptr when it is not one of ours.
[[nodiscard]] const ArchSpec* find_arch(std::string_view name) noexcept;

#define SPECDEC_ARCH(name) extern const ArchSpec k_arch_##name;
#include "model/arch/arch.def"

}  // namespace specdec
