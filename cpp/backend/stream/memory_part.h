#pragma once

#include <cstddef>

namespace specdec::stream {

// Of a block of device memory.
struct MemoryPart {
  std::size_t offset = 0;
  std::size_t n_bytes = 0;
};

}  // namespace specdec::stream
