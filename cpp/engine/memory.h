#pragma once

#include <cstdint>

namespace specdec {

// What this process can still allocate without swapping: free and reclaimable memory of the
// machine, at most what its control group leaves. A guess when the system does not tell.
[[nodiscard]] std::uint64_t available_memory_bytes();

}  // namespace specdec
