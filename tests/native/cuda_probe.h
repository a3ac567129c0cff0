// The products of fragments, alone: what a warp's registers hold is compared with the layouts as
// the tests state them (test_cuda_fragments.py), on the emulator and on a GPU.
#pragma once

#include <cstdint>

#include "backend/cuda/kernels/device.h"
#include "backend/cuda/kernels/launch.h"

namespace specdec::cuda {

struct ProbeParams {
  int k;                   // 32 or 16
  const std::uint32_t* a;  // [32 lanes][4], of which k == 16 uses two
  const std::uint32_t* b;  // [32][2], or one
  std::int32_t* c;         // [32][4], added to
};

struct Probe {
  using Params = ProbeParams;
  static constexpr int kMaxThreads = 32;
  static constexpr int kMinBlocks = 1;

  template <class G>
  static SPECDEC_GPU void run(G& g, const Params& p) {
    const int lane = g.thread();
    std::uint32_t a[4];
    std::uint32_t b[2];
    std::int32_t c[4];
    for (int i = 0; i < 4; ++i) {
      a[i] = g.load(p.a + 4 * lane + i);
      c[i] = g.load(static_cast<const std::int32_t*>(p.c) + 4 * lane + i);
    }
    for (int i = 0; i < 2; ++i) b[i] = g.load(p.b + 2 * lane + i);
    if (p.k == 32) {
      g.mma_k32(c, a, b[0], b[1]);
    } else {
      g.mma_k16(c, a[0], a[1], b[0]);
    }
    for (int i = 0; i < 4; ++i) g.store(p.c + 4 * lane + i, c[i]);
  }
};

// On a GPU; only in builds with CUDA.
void gpu_probe(const ProbeParams& params, Stream stream);

}  // namespace specdec::cuda
