// What stands in for cuda_probe.cu without CUDA.
#include "base/error.h"
#include "cuda_probe.h"

namespace specdec::cuda {

void gpu_probe(const ProbeParams&, Stream) {
  throw Error(ErrorCode::kUnsupported, "this build has no CUDA");
}

}  // namespace specdec::cuda
