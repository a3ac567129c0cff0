// A block behind the target's layers that was trained with it to predict further tokens: the
// target's last hidden state beside the next token.
#include "base/error.h"
#include "decode/drafters/feature_drafter.h"

namespace specdec {

std::unique_ptr<Drafter> make_mtp(const MtpOptions& options, const DrafterModels& models) {
  if (models.features == nullptr)
    throw_invalid(
        "drafter 'mtp' needs a block that predicts further tokens: in the target's file, or "
        "draft=Model(FILE)");
  return make_feature_drafter("mtp",
                              {.lengths = options.lengths,
                               .mode = options.mode,
                               .temperature = options.temperature,
                               .top_k = options.top_k,
                               .head_tokens = options.head_tokens},
                              *models.features);
}

}  // namespace specdec
