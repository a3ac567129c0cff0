// Matrix times a few columns, one table of kernels per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cpu/packed_input.h"
#include "base/cpu_isa.h"
#include "tensor/dtype.h"

namespace specdec {

// out[c * kTileRows + r] = row r of the tile row times column c. `tiles`: one tile row, all of k.
using TileKernel = void (*)(const std::uint8_t* tiles, const PackedInput& input, float* out);

// Writes column `col` of the input from one row of activations.
using QuantizeKernel = void (*)(const float* x, std::int64_t n_in, int col,
                                const PackedInput& input);

// The kernels of one instruction set for the formats that want one kind of input. Plain data which
// the compiler fills: code of an instruction set runs only where the machine has it.
struct MatmulPart {
  TileKernel tile[kDTypeCount][kMaxColumns];  // [dtype_index()][n_cols - 1]
  QuantizeKernel quantize;                    // nullptr: that of a slower instruction set
  bool pairs;                                 // they take pairs of columns (packed_input.h)
};

// Kernels for many columns at once, of all formats of blocks.
struct WideKernels {
  TileKernel tile[kDTypeCount];  // [dtype_index()]
  int from[kDTypeCount];         // the number of columns from which they are the faster ones
  void (*leave)();               // called by each thread that has used them, before it rests
};

class MatmulKernels {
 public:
  // Of the kinds of inputs in their order; `quantize`: whose activations the tiles take.
  // read256: formats of q256's input that are only read, in a unit of their own for its size.
  // wide: if there are.
  constexpr MatmulKernels(const MatmulPart& of_float, const MatmulPart& q32, const MatmulPart& q256,
                          const MatmulPart& read256, const MatmulPart& quantize32,
                          const MatmulPart& quantize256, const WideKernels* wide = nullptr)
      : tiles_{&of_float, &q32, &q256},
        read_(&read256),
        quantize_{&of_float, &quantize32, &quantize256},
        wide_(wide) {}

  // Columns that a group of such inputs may have.
  [[nodiscard]] int max_columns(InputKind kind) const {
    return wide_ != nullptr && kind != InputKind::kFloat ? kMaxWideColumns : kMaxColumns;
  }
  // From how many on a group for such weights is laid out for the wide kernels.
  [[nodiscard]] int wide_from(DType dtype) const {
    constexpr int kNever = kMaxWideColumns + 1;
    if (wide_ == nullptr || wide_->tile[dtype_index(dtype)] == nullptr) return kNever;
    return wide_->from[dtype_index(dtype)];
  }
  void leave() const {
    if (wide_ != nullptr) wide_->leave();
  }

  [[nodiscard]] TileKernel tile(InputKind kind, DType dtype, const PackedInput& input) const {
    const std::size_t format = dtype_index(dtype);
    if (input.wide) return wide_->tile[format];
    const int n = input.n_cols - 1;
    const TileKernel read = read_->tile[format][n];
    return read != nullptr ? read : tiles_[static_cast<int>(kind)]->tile[format][n];
  }
  [[nodiscard]] QuantizeKernel quantize(InputKind kind) const {
    return quantize_[static_cast<int>(kind)]->quantize;
  }
  // Whether numbers first .. end - 1 of a column can be written alone.
  [[nodiscard]] bool fills_parts(InputKind kind, const PackedInput& input) const {
    return !input.wide && !tiles_[static_cast<int>(kind)]->pairs;
  }
  // Those, where that is so and both are multiples of 64, for kQ256 of 256, or the end.
  void fill_part(InputKind kind, const float* x, std::int64_t first, std::int64_t end, int col,
                 const PackedInput& input) const {
    quantize(kind)(x + first, end - first, col, input_from(kind, input, first));
  }
  // Writes a column of an input as its tile kernels take it.
  void fill(InputKind kind, const float* x, int col, const PackedInput& input) const {
    if (input.wide) {
      fill_wide(kind, x, col, input);
    } else if (tiles_[static_cast<int>(kind)]->pairs) {
      fill_paired(kind, x, col, input);
    } else {
      quantize(kind)(x, input.n_in, col, input);
    }
  }

 private:
  void fill_wide(InputKind kind, const float* x, int col, const PackedInput& input) const;
  void fill_paired(InputKind kind, const float* x, int col, const PackedInput& input) const;

  const MatmulPart* tiles_[3];  // [InputKind]
  const MatmulPart* read_;
  const MatmulPart* quantize_[3];  // [InputKind]
  const WideKernels* wide_;
};

// Calls leave() at the end of a thread's part.
class KernelLease {
 public:
  explicit KernelLease(const MatmulKernels& kernels) : kernels_(kernels) {}
  ~KernelLease() { kernels_.leave(); }
  KernelLease(const KernelLease&) = delete;
  KernelLease& operator=(const KernelLease&) = delete;

 private:
  const MatmulKernels& kernels_;
};

[[nodiscard]] const MatmulKernels& matmul_kernels(CpuIsa isa);

}  // namespace specdec

// Of each instruction set, filled by its translation unit (units/*.in).
#define SPECDEC_ISA_HERE(id, space, ...)                                         \
  namespace specdec::space {                                                     \
  extern const MatmulPart kMatmulFloat, kMatmulQ32, kMatmulQ256, kMatmulRead256; \
  }
#define SPECDEC_WIDE_HERE(id, space, ...) \
  namespace specdec::space {              \
  extern const WideKernels kWide;         \
  }
#include "base/isa.def"
