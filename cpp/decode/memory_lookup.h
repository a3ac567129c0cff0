// A drafter that looks up the last tokens in texts of earlier requests.
#pragma once

#include <memory>
#include <string_view>

#include "decode/draft_memory.h"
#include "decode/drafter.h"

namespace specdec {

inline constexpr std::string_view kMemoryName = "memory";

struct MemoryLookupOptions {
  DraftLengths lengths;
  int min_match = DraftMemory::kLeastMatch;  // shorter matches are not drafted from
};

// Drafts in requests that have a memory_key.
[[nodiscard]] std::unique_ptr<Drafter> make_memory_lookup(
    const MemoryLookupOptions& options, std::shared_ptr<const DraftMemory> memory);

}  // namespace specdec
