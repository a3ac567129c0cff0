// What a weight format wants its activations to be, on every device.
#pragma once

namespace specdec {

enum class InputKind {
  kFloat,  // f32 as they are
  kQ32,    // int8, one scale per 32 (formats with blocks of 32)
  kQ256,   // int8, one scale per 256 (formats with blocks of 256)
};
inline constexpr int kInputKinds = 3;

}  // namespace specdec
