#include "quant/encode.h"

#include "base/error.h"

namespace specdec {

Encoder encoder(DType dtype) {
  switch (dtype) {
#define SPECDEC_READ256(name, ...) \
  case DType::k##name:             \
    return nullptr;
#define SPECDEC_FORMAT(name, folder, ...) \
  case DType::k##name:                    \
    return encode_##folder;
#include "tensor/formats.def"
  }
  SPECDEC_CHECK(!"a listed dtype");
}

}  // namespace specdec
