// What a model lends to heads that draft for it.
#include <new>
#include <string>
#include <vector>

#include "model/loader.h"
#include "model/weights.h"

namespace specdec {

// Heads run on the CPU, wherever the layers of their target are. Its embedding stays in the file in
// any case.
const PartWeights& Model::lend(bool with_output) const {
  if (device_ == nullptr) return weights_->model;
  const std::lock_guard lock(lend_mutex_);
  try {
    if (lent_ == nullptr) lent_ = std::make_unique<ModelWeights>();
    lent_->packed = weights_->packed;  // matrices may be over it
    PartWeights& lent = lent_->model;
    LoadOptions options;
    options.requantize = requantize_;
    std::vector<std::string> warnings;  // that loading gave before
    Loader loader(*file_, config_, *backend_, options, lent_->memory, warnings, lent_->requantized,
                  lent_->packed.get());
    for (const Slot& slot : config_.slots) {
      const bool wanted = slot.part == Part::kOutputNorm || slot.part == Part::kOutputNormBias ||
                          (slot.part == Part::kHead && with_output);
      if (!wanted || lent.has(slot.part)) continue;
      const float factor = slot.part == Part::kOutputNorm ? config_.logit_scale : 1.0F;
      loader.slot(slot, static_cast<std::uint64_t>(config_.n_head_tokens), lent, factor);
    }
    if (with_output && config_.tied_head && !lent.has(Part::kHead)) {
      lent.set(Part::kHead, loader.matrix(weights_->embedding->name,
                                          static_cast<std::uint64_t>(config_.n_tokens)));
    }
    return lent;
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kResource,
                file_->path() +
                    ": not enough memory for a copy of the output head on the CPU, where a head "
                    "that drafts uses it; use a head with an output of its own, or load the model "
                    "with device 'cpu'");
  }
}

}  // namespace specdec
