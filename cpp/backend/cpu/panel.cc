#include "backend/cpu/panel.h"

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

Panel lay_out(PanelKind kind, std::int64_t n_in, int n_cols, Cursor& cursor) {
  Panel panel;
  panel.n_cols = n_cols;
  panel.n_in = n_in;
  const std::int64_t n = padded_n_in(kind, n_in) * n_cols;
  switch (kind) {
    case PanelKind::kFloat:
      panel.x = cursor.take<float>(n);
      break;
    case PanelKind::kQ32:
      panel.q = cursor.take<std::int8_t>(n);
      panel.d = cursor.take<float>(n / 32);
      panel.neg_sums = cursor.take<std::int32_t>(n / 32);
      panel.scaled_sums = cursor.take<float>(n / 32);
      break;
    case PanelKind::kQ256:
      panel.q = cursor.take<std::int8_t>(n);
      panel.d = cursor.take<float>(n / 256);
      panel.neg_sums = cursor.take<std::int32_t>(n / 16);
      panel.pairs32 = cursor.take<std::int32_t>(n / 64);
      panel.pairs16 = cursor.take<std::int32_t>(n / 32);
      break;
  }
  return panel;
}

}  // namespace

std::size_t panel_bytes(PanelKind kind, std::int64_t n_in, int n_cols) {
  Cursor cursor(nullptr);
  lay_out(kind, n_in, n_cols, cursor);
  return cursor.used();
}

Panel panel_view(PanelKind kind, std::int64_t n_in, int n_cols, std::byte* memory) {
  Cursor cursor(memory);
  return lay_out(kind, n_in, n_cols, cursor);
}

}  // namespace specdec
