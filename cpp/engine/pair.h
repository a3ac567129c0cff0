// May this draft model draft for that target, and is it likely to pay?
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/loaded_model.h"

namespace specdec {

struct PairReport {
  bool compatible = false;  // every id both can emit stands for the same text
  bool identical = false;   // and both have the same number of tokens
  std::int64_t n_target_tokens = 0;
  std::int64_t n_draft_tokens = 0;
  std::int64_t n_shared_tokens = 0;     // ids below this may be drafted
  std::int64_t first_difference = -1;   // token id, -1: none
  std::string target_text, draft_text;  // of that id, printable
  std::string reason;                   // one sentence: why not, or what is odd; may be empty
  std::vector<std::string> warnings;    // e.g. a draft that is not much smaller
  // Weight bytes a draft step reads / those of a target step: about the cost ratio on a CPU.
  double cost_ratio = 0;
  std::uint64_t memory_bytes = 0;        // weights of both
  std::uint64_t kv_bytes_per_token = 0;  // caches of both
};

[[nodiscard]] PairReport check_pair(const LoadedModel& target, const LoadedModel& draft);
// Of files, without reading the weights. A file that does not run cannot pair, and reason says why.
[[nodiscard]] PairReport check_pair(const GgufFile& target, const GgufFile& draft);

// Error(kUnsupported) with the report's reason unless compatible.
void require_pair(const LoadedModel& target, const LoadedModel& draft);

}  // namespace specdec
