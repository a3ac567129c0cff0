// Reference codecs: scalar, one definition of every weight format, bit-exact with the gguf Python
// package. Fast kernels are tested against these; conversion and small jobs use them directly.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace specdec {

// n: elements, a multiple of the block size. Blocks are aligned to 2 bytes, floats to 4.
struct Codec {
  void (*dequantize)(const void* src, float* dst, std::int64_t n) noexcept;
  void (*quantize)(const float* src, void* dst, std::int64_t n) noexcept;  // nullptr: decode only
};

[[nodiscard]] const Codec& codec(DType dtype);

// The codec of each format, defined in quant/<format>/reference.cc.
#define SPECDEC_FORMAT(name, folder, ...) const Codec& codec_##folder() noexcept;
#include "tensor/formats.def"

}  // namespace specdec
