#include "quant/codec.h"

#include "base/error.h"

namespace specdec {

const Codec& codec(DType dtype) {
  switch (dtype) {
#define SPECDEC_FORMAT(name, folder, ...) \
  case DType::k##name:                    \
    return codec_##folder();
#include "tensor/formats.def"
  }
  SPECDEC_CHECK(!"a listed dtype");
}

}  // namespace specdec
