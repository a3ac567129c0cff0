// The wide kernels on registers that are plain memory (standin_registers.h), each over an
// instruction set that has everything else.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/matmul.h"

namespace specdec {

namespace standin_scalar {
extern const WideKernels kWide;
}
namespace standin_avx512 {
extern const WideKernels kWide;
}

// Whether trap_tiles() lets this processor, which has no AMX, go on behind its instructions.
[[nodiscard]] bool can_trap_tiles();
void trap_tiles();

struct Standin {
  const char* name;
  CpuIsa narrow;
  MatmulKernels kernels;

  // Threads whose registers are configured.
  static inline std::atomic<int> n_configured = 0;
  static inline std::atomic<int> n_configurations = 0;  // so far
  // Takes unsigned bytes for signed ones: what the self-check is to find.
  static inline std::atomic<bool> broken = false;
};

// nullptr: none of that name.
[[nodiscard]] const Standin* find_standin(const std::string& name);

// Those whose vectors this machine has.
[[nodiscard]] std::vector<std::string> standin_names();

// With an instruction set or a stand-in.
[[nodiscard]] std::shared_ptr<Backend> make_test_backend(const std::string& isa, int n_threads,
                                                         Repack repack = Repack::kAuto);

}  // namespace specdec
