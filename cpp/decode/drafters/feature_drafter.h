// What drafters on the target's hidden states have in common, whatever head they run.
#pragma once

#include <memory>
#include <string_view>

#include "decode/drafter.h"

namespace specdec {

// `name`: of the drafter, and lives for ever. Of the options all but branch count. Throws
// Error(kInvalidArgument) for one out of range.
[[nodiscard]] std::unique_ptr<Drafter> make_feature_drafter(std::string_view name,
                                                            const DraftModelOptions& options,
                                                            FeatureCache& cache);

}  // namespace specdec
