// What a memory's file holds behind its head, as it is written.
#pragma once

#include <string>

#include "decode/draft_memory.h"
#include "engine/memory_file.h"

namespace specdec {

// A file holds more than a memory has room for: others, or earlier ones with more room, wrote it.
[[nodiscard]] bool exceeds(const MemoryFile& file, const DraftMemory& memory);

// The memory's texts and rows. `before`: the file that is to be replaced, or null. Of one that
// exceeds the memory the texts and rows that are not in the memory stay, in front, as the less
// recently used: the new file holds as much as the old one, whose oldest texts make way.
[[nodiscard]] std::string memory_body(const DraftMemory& memory, const MemoryFile* before);

}  // namespace specdec
