// What processors of NVIDIA's architectures hold at a time (CUDA programming guide, "Technical
// Specifications per Compute Capability").
#pragma once

#include <algorithm>
#include <array>

namespace specdec::cuda {

struct ArchitectureLimits {
  const char* name;
  int threads, blocks_at_a_time;
  int shared_bytes;         // of a processor
  int shared_of_system;     // that each block takes beside its own
  int registers = 1 << 16;  // of a processor, and at most of a block

  // Blocks of n_threads that a processor holds; registers: of a thread, 0: as many as there are.
  [[nodiscard]] constexpr int blocks(int n_threads, int block_bytes, int of_thread) const {
    const int n_warps = n_threads / 32;
    const int of_warp = (of_thread * 32 + 255) / 256 * 256;  // as they are handed out
    const int bytes = (block_bytes + shared_of_system + 127) / 128 * 128;
    int n = std::min(blocks_at_a_time, threads / n_threads);
    if (bytes > 0) n = std::min(n, shared_bytes / bytes);
    if (of_warp > 0) n = std::min(n, registers / (of_warp * n_warps));
    return n;
  }
};

inline constexpr std::array kArchitectures{
    ArchitectureLimits{"sm_75", 1024, 16, 64 << 10, 0},
    ArchitectureLimits{"sm_80", 2048, 32, 164 << 10, 1024},
    ArchitectureLimits{"sm_86", 1536, 16, 100 << 10, 1024},
    ArchitectureLimits{"sm_89", 1536, 24, 100 << 10, 1024},
    ArchitectureLimits{"sm_90", 2048, 32, 228 << 10, 1024},
    ArchitectureLimits{"sm_100", 2048, 32, 228 << 10, 1024},
    ArchitectureLimits{"sm_120", 1536, 24, 100 << 10, 1024},
};

}  // namespace specdec::cuda
