// An EAGLE-3 head: what enters layers of the target, joined, beside the next token. Its output
// matrix is small already.
#include "base/error.h"
#include "decode/drafters/feature_drafter.h"

namespace specdec {

std::unique_ptr<Drafter> make_eagle(const EagleOptions& options, const DrafterModels& models) {
  if (models.features == nullptr)
    throw_invalid(
        "drafter 'eagle' needs a head that was trained for the target: draft=Model(FILE)");
  return make_feature_drafter("eagle",
                              {.lengths = options.lengths,
                               .mode = options.mode,
                               .temperature = options.temperature,
                               .top_k = options.top_k,
                               .head_tokens = 0},
                              *models.features);
}

}  // namespace specdec
