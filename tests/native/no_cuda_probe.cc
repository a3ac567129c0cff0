// What stands in for what only builds with CUDA have.
#include "base/error.h"
#include "cuda_probe.h"

namespace specdec::cuda {

void gpu_probe(const ProbeParams&, Stream) {
  throw Error(ErrorCode::kUnsupported, "this build has no CUDA");
}

void set_gpu_processors(int) {}

}  // namespace specdec::cuda
