#include "backend/cpu/packed_input.h"

#include <cstring>
#include <type_traits>

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

PackedInput input_from(InputKind kind, const PackedInput& input, std::int64_t k) {
  PackedInput rest = input;
  rest.n_in -= k;
  const std::int64_t n = k * input.n_cols;
  switch (kind) {
    case InputKind::kFloat:
      rest.x += n;
      break;
    case InputKind::kQ32:
      rest.q += n;
      rest.d += n / 32;
      rest.neg_sums += n / 32;
      rest.scaled_sums += n / 32;
      break;
    case InputKind::kQ256:
      rest.q += n;
      rest.d += n / 256;
      rest.neg_sums += n / 16;
      rest.pairs32 += n / 64;
      rest.pairs16 += n / 32;
      break;
  }
  return rest;
}

void put_wide_column(InputKind kind, const PackedInput& one, int col, const PackedInput& wide) {
  const std::int64_t n = padded_n_in(kind, wide.n_in);
  const auto spread = [&](const auto* from, const auto* to, std::int64_t length) {
    auto* out = const_cast<std::remove_const_t<std::remove_pointer_t<decltype(from)>>*>(to);
    for (std::int64_t i = 0; i < length; ++i) out[i * wide.n_cols + col] = from[i];
  };
  auto* q = const_cast<std::int8_t*>(wide.q);
  for (std::int64_t i = 0; i < n / 64; ++i)
    std::memcpy(q + (i * wide.n_cols + col) * 64, one.q + i * 64, 64);
  if (kind == InputKind::kQ32) {
    spread(one.d, wide.d, n / 32);
    spread(one.scaled_sums, wide.scaled_sums, n / 32);
  } else {
    spread(one.d, wide.d, n / 256);
    spread(one.pairs32, wide.pairs32, n / 64);
    spread(one.pairs16, wide.pairs16, n / 32);
  }
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
