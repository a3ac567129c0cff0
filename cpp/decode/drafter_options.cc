#include "decode/drafter_options.h"

#include <array>
#include <utility>

#include "base/error.h"
#include "decode/drafter.h"

namespace specdec {
namespace {

constexpr std::array<std::pair<DraftMode, std::string_view>, 4> kModes = {{
    {DraftMode::kAuto, "auto"},
    {DraftMode::kGreedy, "greedy"},
    {DraftMode::kSampled, "sampled"},
    {DraftMode::kCoupled, "coupled"},
}};

void check_length(const char* name, int value) {
  if (value >= 0 && value <= DraftLengths::kMost) return;
  throw_invalid(std::string(name) + " must be 0 to " + std::to_string(DraftLengths::kMost) +
                ", got " + std::to_string(value));
}

}  // namespace

void DraftLengths::validate() const {
  if (draft_max) check_length("draft_max", *draft_max);
  check_length("draft_min", draft_min);
  if (gamma) check_length("gamma", *gamma);
}

DraftMode parse_draft_mode(std::string_view name) {
  std::string known;
  for (const auto& [mode, text] : kModes) {
    if (text == name) return mode;
    known += " " + std::string(text);
  }
  throw_invalid("draft_sampling must be one of" + known + ", got '" + printable(name) + "'");
}

std::string_view to_string(DraftMode mode) { return kModes[static_cast<std::size_t>(mode)].second; }

std::string_view drafter_name(const DrafterOptions& options) {
  return all_drafters()[options.index()].name;
}

const DraftLengths& draft_lengths(const DrafterOptions& options) {
  return std::visit([](const auto& o) -> const DraftLengths& { return o.lengths; }, options);
}

DrafterOptions default_drafter_options(std::string_view name) {
  std::string known;
  for (const DrafterInfo& info : all_drafters()) {
    if (info.name == name) return info.defaults();
    known += (known.empty() ? "" : ", ") + std::string(info.name);
  }
  throw_invalid("drafter must be one of " + known + "; got '" + printable(name) + "'");
}

}  // namespace specdec
