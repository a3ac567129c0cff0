#include "backend/cpu/wide/self_check.h"

#include <cstring>
#include <string>
#include <vector>

#include "backend/cpu/packed_inputs.h"
#include "backend/cpu/tiles/tile_format.h"
#include "base/aligned_buffer.h"
#include "base/log.h"

namespace specdec {
namespace {

constexpr std::int64_t kInputs = 768;  // three tiles: every stage of the kernels is full once
// Columns in one register, in two, and in two passes.
constexpr int kColumns[] = {kTileRows - 5, kTileRows + 3, kMaxWideColumns / 2 + 3};

// Bytes whose bit 6 is not set: as a half or its part, a finite number.
std::vector<std::byte> some_bytes(std::size_t n) {
  std::vector<std::byte> out(n);
  std::uint32_t state = 1;
  for (std::byte& byte : out) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<std::byte>(state >> 24 & 0xBFU);
  }
  return out;
}

std::vector<float> some_rows(int n_rows) {
  std::vector<float> out(static_cast<std::size_t>(kInputs) * static_cast<std::size_t>(n_rows));
  std::uint32_t state = 7;
  for (float& x : out) {
    state = state * 1664525U + 1013904223U;
    x = static_cast<float>(static_cast<std::int32_t>(state >> 8) - (1 << 23));
  }
  return out;
}

// One tile row of a format.
AlignedBuffer some_tiles(DType dtype) {
  const DTypeTraits& traits = dtype_traits(dtype);
  const TileFormat& format = tile_format(dtype);
  const std::size_t unit_bytes =
      static_cast<std::size_t>(format.unit) / traits.block_elements * traits.block_bytes;
  const auto n_units = static_cast<std::size_t>(kInputs / format.unit);
  const std::vector<std::byte> bytes = some_bytes(unit_bytes * kTileRows * n_units);
  AlignedBuffer tiles(format.tile_bytes * n_units);
  for (std::size_t unit = 0; unit < n_units; ++unit) {
    const std::byte* rows[kTileRows];
    for (std::size_t r = 0; r < kTileRows; ++r)
      rows[r] = bytes.data() + (unit * kTileRows + r) * unit_bytes;
    format.pack(rows, kTileRows, format.unit, tiles.as<std::uint8_t>() + unit * format.tile_bytes);
  }
  return tiles;
}

std::vector<float> product(const MatmulKernels& kernels, DType dtype, int n_rows) {
  const InputKind kind =
      dtype_traits(dtype).block_elements == 32 ? InputKind::kQ32 : InputKind::kQ256;
  const AlignedBuffer tiles = some_tiles(dtype);
  const std::vector<float> x = some_rows(n_rows);
  PackedInputs inputs(kernels, n_rows, kInputs);
  inputs.want(kind, dtype);
  AlignedBuffer memory;
  inputs.allocate(memory);
  for (int row = 0; row < n_rows; ++row) inputs.fill(row, x.data() + row * kInputs);
  std::vector<float> out;
  for (int g = 0; g < inputs.split().n_groups(); ++g) {
    const KernelLease lease(kernels);
    alignas(64) float y[kMaxWideColumns * kTileRows];
    const PackedInput& input = inputs.view(kind, g);
    kernels.tile(kind, dtype, input)(tiles.as<std::uint8_t>(), input, y);
    out.insert(out.end(), y, y + input.n_cols * kTileRows);
  }
  return out;
}

}  // namespace

bool wide_kernels_agree(const MatmulKernels& kernels) {
  // Each way to fold scales in.
  for (const DType dtype : {DType::kQ4_K, DType::kQ6_K, DType::kQ3_K, DType::kQ2_K, DType::kQ8_0}) {
    for (const int n : kColumns) {
      const std::vector<float> got = product(kernels, dtype, n);
      const std::vector<float> want = product(matmul_kernels(CpuIsa::kScalar), dtype, n);
      if (std::memcmp(got.data(), want.data(), want.size() * sizeof(float)) != 0) return false;
    }
  }
  return true;
}

CpuIsa checked_cpu_isa(CpuIsa isa, CpuIsa narrow, const MatmulKernels& kernels) {
  if (wide_kernels_agree(kernels)) return isa;
  log_message(LogLevel::kWarning,
              std::string(cpu_isa_name(isa)) +
                  " gives other products on this processor than it should, so " +
                  cpu_isa_name(narrow) + " is used; please report which processor it is");
  return narrow;
}

CpuIsa working_cpu_isa(CpuIsa isa) {
  switch (isa) {
#define SPECDEC_WIDE_HERE(id, space, name, narrow_id, narrow)                       \
  case CpuIsa::id: {                                                                \
    static const CpuIsa working =                                                   \
        checked_cpu_isa(CpuIsa::id, CpuIsa::narrow_id, matmul_kernels(CpuIsa::id)); \
    return working;                                                                 \
  }
#include "base/isa.def"
    default:
      return isa;
  }
}

}  // namespace specdec
