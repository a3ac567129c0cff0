#include "backend/backend.h"

#include "base/error.h"

namespace specdec {

std::size_t Backend::packed_bytes(DType /*dtype*/, std::int64_t /*n_out*/,
                                  std::int64_t /*n_in*/) const {
  return 0;
}

std::unique_ptr<WeightMatrix> Backend::use_packed(DType /*dtype*/, std::int64_t /*n_out*/,
                                                  std::int64_t /*n_in*/,
                                                  std::span<const std::byte> /*packed*/) {
  throw Error(ErrorCode::kUnsupported, info().name + " cannot use packed weights from a file");
}

void Backend::gate(const GateTask& /*task*/) {
  throw Error(ErrorCode::kUnsupported, info().name + " cannot gate rows");
}

void Backend::recurrent(const RecurrentTask& /*task*/) {
  throw Error(ErrorCode::kUnsupported, info().name + " has no recurrent layers");
}

}  // namespace specdec
