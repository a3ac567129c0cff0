#include "decode/drafter.h"

#include <array>

#include "base/error.h"

namespace specdec {

#define SPECDEC_DRAFTER(name, Options, needs_model, function) \
  std::unique_ptr<Drafter> function(const Options&, const DrafterModels&);
#include "decode/drafters/drafters.def"
#undef SPECDEC_DRAFTER

std::span<const DrafterInfo> all_drafters() {
#define SPECDEC_DRAFTER(name, Options, needs_model, function)                  \
  DrafterInfo{name, needs_model, [] { return DrafterOptions(Options()); },     \
              [](const DrafterOptions& options, const DrafterModels& models) { \
                return function(std::get<Options>(options), models);           \
              }},
  static const std::array kDrafters = {
#include "decode/drafters/drafters.def"
  };
#undef SPECDEC_DRAFTER
  return kDrafters;
}

std::unique_ptr<Drafter> make_drafter(const DrafterOptions& options, const DrafterModels& models) {
  draft_lengths(options).validate();
  return all_drafters()[options.index()].make(options, models);
}

bool is_survivable(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNumerical:
    case ErrorCode::kResource:
    case ErrorCode::kContextFull:
    case ErrorCode::kUnsupported:
    case ErrorCode::kDevice:
      return true;
    default:
      return false;
  }
}

}  // namespace specdec
