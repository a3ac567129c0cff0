#include "backend/backend.h"

#include "base/error.h"

namespace specdec {

void Backend::gate(const GateTask& /*task*/) {
  throw Error(ErrorCode::kUnsupported, info().name + " cannot gate rows");
}

void Backend::recurrent(const RecurrentTask& /*task*/) {
  throw Error(ErrorCode::kUnsupported, info().name + " has no recurrent layers");
}

}  // namespace specdec
