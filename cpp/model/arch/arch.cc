#include "model/arch/arch.h"

namespace specdec {

namespace {

const ArchSpec* const kSpecs[] = {
#define SPECDEC_ARCH(name) &k_arch_##name,
#include "model/arch/arch.def"
};

}  // namespace

const ArchSpec* find_arch(std::string_view name) noexcept {
  for (const ArchSpec* spec : kSpecs) {
    if (name == spec->name) return spec;
  }
  return nullptr;
}

std::vector<std::string> supported_architectures() {
  std::vector<std::string> names;
  for (const ArchSpec* spec : kSpecs) names.emplace_back(spec->name);
  return names;
}

}  // namespace specdec
