#include "backend/cpu/packed_input.h"

#include <cstring>

namespace specdec {
namespace {

// Hands out 64-byte aligned pieces of one block of memory.
class Cursor {
 public:
  explicit Cursor(std::byte* base) : base_(reinterpret_cast<std::uintptr_t>(base)) {}
  template <class T>
  T* take(std::int64_t n) {
    auto* out = reinterpret_cast<T*>(base_ + used_);
    used_ += (static_cast<std::size_t>(n) * sizeof(T) + 63) / 64 * 64;
    return out;
  }
  [[nodiscard]] std::size_t used() const { return used_; }

 private:
  std::uintptr_t base_;
  std::size_t used_ = 0;
};

PackedInput lay_out(InputKind kind, std::int64_t n_in, int n_cols, Cursor& cursor) {
  PackedInput input;
  input.n_cols = n_cols;
  input.n_in = n_in;
  const std::int64_t n = padded_n_in(kind, n_in) * n_cols;
  const std::int64_t n_codes = padded_n_in(kind, n_in) * even_columns(n_cols);
  switch (kind) {
    case InputKind::kFloat:
      input.x = cursor.take<float>(n);
      break;
    case InputKind::kQ32:
      input.q = cursor.take<std::int8_t>(n_codes);
      input.d = cursor.take<float>(n / 32);
      input.neg_sums = cursor.take<std::int32_t>(n / 32);
      input.scaled_sums = cursor.take<float>(n / 32);
      break;
    case InputKind::kQ256:
      input.q = cursor.take<std::int8_t>(n_codes);
      input.d = cursor.take<float>(n / 256);
      input.neg_sums = cursor.take<std::int32_t>(n / 16);
      input.pairs32 = cursor.take<std::int32_t>(n / 64);
      input.pairs16 = cursor.take<std::int32_t>(n / 32);
      break;
  }
  return input;
}

}  // namespace

std::size_t packed_input_bytes(InputKind kind, std::int64_t n_in, int n_cols) {
  Cursor cursor(nullptr);
  lay_out(kind, n_in, n_cols, cursor);
  return cursor.used();
}

void pair_column(InputKind kind, const std::int8_t* codes, int col, const PackedInput& input) {
  const std::int64_t n_cols = input.n_cols;
  auto* q = const_cast<std::int8_t*>(input.q) + col / 2 * 64;
  const bool alone = col % 2 == 0 && col + 1 == n_cols;
  for (std::int64_t b = 0; b < padded_n_in(kind, input.n_in) / 32; ++b) {
    const std::int8_t* from = codes + (b * n_cols + col) * 32;
    std::int8_t* to = q + b * even_columns(input.n_cols) * 32 + col % 2 * 8;
    for (int i = 0; i < 4; ++i) {
      std::memcpy(to + 16 * i, from + 8 * i, 8);
      if (alone) std::memcpy(to + 16 * i + 8, from + 8 * i, 8);
    }
  }
}

PackedInput packed_input_view(InputKind kind, std::int64_t n_in, int n_cols, std::byte* memory) {
  Cursor cursor(memory);
  return lay_out(kind, n_in, n_cols, cursor);
}

}  // namespace specdec
