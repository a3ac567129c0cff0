// Tables of the wide kernels on registers that are plain memory (standin_registers.h).
#pragma once

#include <atomic>

#include "backend/cpu/matmul.h"

namespace specdec {

struct Standin {
  // Threads whose registers are configured.
  static inline std::atomic<int> n_configured = 0;
  static inline std::atomic<int> n_configurations = 0;  // so far
  // Takes unsigned bytes for signed ones: what the self-check is to find.
  static inline std::atomic<bool> broken = false;
};

namespace standin_scalar {
extern const WideKernels kWide;
}
#if defined(__x86_64__) && !defined(SPECDEC_SCALAR_ONLY)
namespace standin_avx512 {
extern const WideKernels kWide;
}
#endif

}  // namespace specdec
