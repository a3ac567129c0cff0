// Buffers of one forward pass on the CPU. Grown on demand, never shrunk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/token.h"

namespace specdec {

struct WorkSpace {
  // Floats, rows padded to cache lines.
  AlignedBuffer qkv;                    // [n_rows, qkv_size]
  AlignedBuffer attention;              // [n_rows, q_size]
  AlignedBuffer ffn;                    // [n_rows, intermediate_size]
  AlignedBuffer expert_weights;         // [n_rows, n_experts_used]
  AlignedBuffer paired;                 // [n_rows, 2 hidden_size] of heads that draft
  AlignedBuffer taps;                   // [n_rows, tap_size] of them
  std::vector<std::int32_t> experts;    // [n_rows, n_experts_used]
  AlignedBuffer cos_sin;                // [n_ropes, n_rows, n_rot]
  std::vector<std::int32_t> positions;  // [n_rows]
  std::vector<TokenId> tokens;          // [n_rows] of several parts
  std::vector<float> rope_tables[2];    // [positions seen, rope_width], the second of long contexts

  [[nodiscard]] std::size_t n_bytes() const noexcept {
    return qkv.size() + attention.size() + ffn.size() + cos_sin.size() + expert_weights.size() +
           experts.capacity() * sizeof(std::int32_t) + paired.size() + taps.size() +
           (rope_tables[0].capacity() + rope_tables[1].capacity()) * sizeof(float);
  }
};

// Room for n_rows rows of `stride` floats.
inline float* rows_of(AlignedBuffer& buffer, int n_rows, std::int64_t stride) {
  buffer.require(static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(stride) *
                 sizeof(float));
  return buffer.as<float>();
}

}  // namespace specdec
