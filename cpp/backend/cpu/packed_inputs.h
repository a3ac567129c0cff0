// The input of one operation as its matrices want it: rows cut into groups of columns, quantised
// once for all matrices.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "backend/cpu/matmul.h"
#include "backend/cpu/packed_input.h"
#include "base/aligned_buffer.h"

namespace specdec {

// The rows of one operation, dealt out evenly in groups of at most `most`.
class ColumnSplit {
 public:
  explicit ColumnSplit(int n_rows, int most = kMaxColumns)
      : n_rows_(n_rows), n_groups_((n_rows + most - 1) / most) {}
  [[nodiscard]] int n_groups() const { return n_groups_; }
  [[nodiscard]] int first(int group) const {
    return n_rows_ / n_groups_ * group + std::min(group, n_rows_ % n_groups_);
  }
  [[nodiscard]] int size(int group) const {
    return n_rows_ / n_groups_ + (group < n_rows_ % n_groups_ ? 1 : 0);
  }
  [[nodiscard]] int group_of(int row) const {
    const int large = n_rows_ / n_groups_ + 1;
    const int n_large = n_rows_ % n_groups_;
    return row < large * n_large ? row / large : n_large + (row - large * n_large) / (large - 1);
  }

 private:
  int n_rows_;
  int n_groups_;
};

// Input of one operation, normalised and quantised in every form its matrices need.
class PackedInputs {
 public:
  PackedInputs(const MatmulKernels& kernels, int n_rows, std::int64_t n_in)
      : kernels_(&kernels), n_rows_(n_rows), split_(n_rows), n_in_(n_in) {}

  // For weights of `dtype`. All kinds have the same groups, all weights of a kind the same layout.
  void want(InputKind kind, DType dtype) {
    const auto i = static_cast<std::size_t>(kind);
    wanted_[i] = true;
    wide_from_[i] = std::max(wide_from_[i], kernels_->wide_from(dtype));
    max_columns_ = std::min(max_columns_, kernels_->max_columns(kind));
    split_ = ColumnSplit(n_rows_, max_columns_);
  }

  void allocate(AlignedBuffer& buffer) {
    allocated_ = n_bytes();
    buffer.require(allocated_);
    place(buffer.data());
  }
  // 0 before allocate().
  [[nodiscard]] std::size_t allocated() const { return allocated_; }

  [[nodiscard]] std::size_t n_bytes() const {
    std::size_t n = 0;
    for (std::size_t kind = 0; kind < 3; ++kind) {
      if (!wanted_[kind]) continue;
      for (int g = 0; g < split_.n_groups(); ++g)
        n += packed_input_bytes(static_cast<InputKind>(kind), n_in_, split_.size(g));
    }
    return n;
  }

  // Memory of n_bytes(), 64-byte aligned.
  void place(std::byte* memory) {
    for (std::size_t kind = 0; kind < 3; ++kind) {
      if (!wanted_[kind]) continue;
      views_[kind].resize(static_cast<std::size_t>(split_.n_groups()));
      for (int g = 0; g < split_.n_groups(); ++g) {
        const auto input_kind = static_cast<InputKind>(kind);
        PackedInput& view = views_[kind][static_cast<std::size_t>(g)];
        view = packed_input_view(input_kind, n_in_, split_.size(g), memory);
        view.wide = split_.size(g) >= wide_from_[kind];
        memory += packed_input_bytes(input_kind, n_in_, split_.size(g));
      }
    }
  }

  // Fills the column of one row.
  void fill(int row, const float* x) const {
    const int group = split_.group_of(row);
    const int col = row - split_.first(group);
    for (std::size_t i = 0; i < 3; ++i) {
      if (!wanted_[i]) continue;
      const auto kind = static_cast<InputKind>(i);
      kernels_->fill(kind, x, col, view(kind, group));
    }
  }

  // Whether threads may share the numbers of a row; otherwise each fills whole ones.
  [[nodiscard]] bool fills_parts() const {
    for (std::size_t i = 0; i < 3; ++i) {
      for (const PackedInput& input : views_[i])
        if (!kernels_->fills_parts(static_cast<InputKind>(i), input)) return false;
    }
    return true;
  }
  // Where part `i` of `n` of a row begins.
  [[nodiscard]] std::int64_t part(std::int64_t i, std::int64_t n) const {
    const std::int64_t unit = wanted_[static_cast<std::size_t>(InputKind::kQ256)] ? 256 : 64;
    return std::min(n_in_, (n_in_ * i / n + unit - 1) / unit * unit);
  }
  // Numbers first .. end - 1 of the row, borders of parts; where fills_parts().
  void fill_part(int row, const float* x, std::int64_t first, std::int64_t end) const {
    const int group = split_.group_of(row);
    const int col = row - split_.first(group);
    for (std::size_t i = 0; i < 3; ++i) {
      if (!wanted_[i]) continue;
      const auto kind = static_cast<InputKind>(i);
      kernels_->fill_part(kind, x, first, end, col, view(kind, group));
    }
  }

  [[nodiscard]] std::int64_t n_in() const { return n_in_; }
  [[nodiscard]] const ColumnSplit& split() const { return split_; }
  [[nodiscard]] const PackedInput& view(InputKind kind, int group) const {
    return views_[static_cast<std::size_t>(kind)][static_cast<std::size_t>(group)];
  }

 private:
  const MatmulKernels* kernels_;
  int n_rows_;
  int max_columns_ = kMaxWideColumns;
  ColumnSplit split_;
  std::int64_t n_in_;
  std::size_t allocated_ = 0;
  std::array<bool, 3> wanted_{};
  std::array<int, 3> wide_from_{};
  std::array<std::vector<PackedInput>, 3> views_;
};

}  // namespace specdec
