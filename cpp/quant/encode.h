// The encoders of every weight format: as close to the weights as its blocks allow, unlike the
// reference quantisers of codec.h, which round once. Deterministic: the same bits on every machine.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace specdec {

// n: elements, a multiple of the block size. Blocks are aligned to 2 bytes, floats to 4. Weights
// are finite and, but for F32 and BF16, at most 65504 in magnitude; others do no harm and mean
// nothing.
using Encoder = void (*)(const float* src, void* dst, std::int64_t n);

// nullptr: a format that is only read, as it needs to know which weights matter.
[[nodiscard]] Encoder encoder(DType dtype);

// The encoder of each format, defined in quant/<format>/encode.cc.
#define SPECDEC_READ256(...)
#define SPECDEC_FORMAT(name, folder, ...) void encode_##folder(const float*, void*, std::int64_t);
#include "tensor/formats.def"

}  // namespace specdec
