#include "decode/drafter.h"

#include <array>

#include "base/error.h"

namespace specdec {

#define SPECDEC_DRAFTER(name, needs_model, function) \
  std::unique_ptr<Drafter> function(const DrafterSource&);
#include "decode/drafters/drafters.def"
#undef SPECDEC_DRAFTER

std::span<const DrafterInfo> all_drafters() {
#define SPECDEC_DRAFTER(name, needs_model, function) DrafterInfo{name, needs_model, function},
  static const std::array kDrafters = {
#include "decode/drafters/drafters.def"
  };
#undef SPECDEC_DRAFTER
  return kDrafters;
}

std::unique_ptr<Drafter> make_drafter(std::string_view name, const DrafterSource& source) {
  std::string known;
  for (const DrafterInfo& info : all_drafters()) {
    if (info.name == name) {
      if (info.needs_model && source.draft_scorer == nullptr && source.layer_scorer == nullptr) {
        throw_invalid("drafter '" + std::string(name) + "' needs a draft model");
      }
      return info.make(source);
    }
    known += (known.empty() ? "" : ", ") + std::string(info.name);
  }
  throw_invalid("drafter must be one of " + known + "; got '" + printable(name) + "'");
}

}  // namespace specdec
