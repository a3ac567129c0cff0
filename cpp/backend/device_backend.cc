#include "backend/device_backend.h"

#include <algorithm>

namespace specdec {

void WorkShape::include(const WorkShape& other) {
  max_rows = std::max(max_rows, other.max_rows);
  hidden_size = std::max(hidden_size, other.hidden_size);
  qkv_size = std::max(qkv_size, other.qkv_size);
  q_size = std::max(q_size, other.q_size);
  ffn_size = std::max(ffn_size, other.ffn_size);
  max_n_in = std::max(max_n_in, other.max_n_in);
  n_tokens = std::max(n_tokens, other.n_tokens);
  n_heads = std::max(n_heads, other.n_heads);
  n_kv_heads = std::max(n_kv_heads, other.n_kv_heads);
  head_dim = std::max(head_dim, other.head_dim);
  n_rot = std::max(n_rot, other.n_rot);
  n_ctx = std::max(n_ctx, other.n_ctx);
  n_experts = std::max(n_experts, other.n_experts);
  n_experts_used = std::max(n_experts_used, other.n_experts_used);
  expert_size = std::max(expert_size, other.expert_size);
}

std::size_t estimated_work_bytes(const WorkShape& shape) {
  const auto rows = static_cast<std::size_t>(shape.max_rows);
  const auto floats = [](std::int64_t n) {
    return static_cast<std::size_t>(padded_row(n)) * sizeof(float);
  };
  // Rows of the pass, its input once more as integers, and 16 rows of logits.
  return rows * (floats(shape.hidden_size) + floats(shape.qkv_size) + floats(shape.q_size) +
                 floats(shape.ffn_size) + floats(shape.n_rot) + floats(shape.max_n_in) / 2) +
         16 * floats(shape.n_tokens) +
         static_cast<std::size_t>(kExpertRows * shape.n_experts_used) *
             (floats(shape.expert_size) + floats(shape.n_experts_used > 0 ? shape.hidden_size : 0));
}

}  // namespace specdec
