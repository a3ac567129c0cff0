#include "quant/encode.h"

#include "base/error.h"

namespace specdec {

Encoder encoder(DType dtype) {
  switch (dtype) {
#define SPECDEC_PLAIN_TYPE(dtype, name) \
  case DType::dtype:                    \
    return encode_##name;
#define SPECDEC_QUANT_TYPE(dtype, name, block) \
  case DType::dtype:                           \
    return encode_##name;
#include "quant/registry.def"
  }
  SPECDEC_CHECK(!"a listed dtype");
}

}  // namespace specdec
