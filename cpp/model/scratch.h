// Buffers of one forward pass and its results. Owned by the caller, grown on demand, never shrunk.
// One Scratch serves one forward at a time; give each thread its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/token.h"

namespace specdec {

// 64-byte aligned floats; growing loses the content.
class FloatBuffer {
 public:
  // Room for n floats. Throws Error(kResource).
  float* reserve(std::size_t n);
  [[nodiscard]] float* data() const noexcept { return data_.get(); }
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }

 private:
  struct Free {
    void operator()(float* p) const noexcept;
  };
  std::unique_ptr<float[], Free> data_;
  std::size_t capacity_ = 0;
};

class Scratch {
 public:
  // Results of the last forward for row r of its batch, first_output_row <= r < n_rows. They live until
  // the next forward with this Scratch. Error(kInvalidArgument) for a row or kind that was not asked for.
  [[nodiscard]] std::span<const float> logits(int row) const;  // [n_tokens]
  [[nodiscard]] TokenId argmax(int row) const;                 // ties to the lowest id
  [[nodiscard]] std::span<const float> hidden(int row) const;  // [hidden_size]

  [[nodiscard]] std::size_t n_bytes() const noexcept;

 private:
  friend class Model;

  [[nodiscard]] int output_index(int row, bool available, const char* what) const;

  FloatBuffer hidden_;     // [n_rows, hidden_size] the residual stream
  FloatBuffer qkv_;        // [n_rows, q_size + 2 kv_size]
  FloatBuffer attention_;  // [n_rows, q_size]
  FloatBuffer ffn_;        // [n_rows, intermediate_size]
  FloatBuffer logits_;     // [n_outputs, n_tokens]
  FloatBuffer cos_sin_;    // [n_rows, n_rot]
  std::vector<TokenId> argmax_;          // [n_outputs]
  std::vector<std::int32_t> positions_;  // [n_rows]
  std::vector<float> rope_table_;        // [positions seen, n_rot], of the model rope_owner_
  std::uint64_t rope_owner_ = 0;

  int n_rows_ = 0;
  int first_output_row_ = 0;
  bool has_logits_ = false, has_argmax_ = false, has_hidden_ = false;
  std::size_t logits_stride_ = 0, hidden_stride_ = 0;
  std::size_t n_logits_ = 0, n_hidden_ = 0;
};

}  // namespace specdec
