#include "backend/cuda/kernels/layout.h"

#include "backend/cuda/kernels/formats.h"
#include "base/error.h"

namespace specdec::cuda {
namespace {

template <class F>
WeightLayout layout_of(InputKind kind) {
  return {kind, F::kUnit, F::kHeaderBytes, F::kCodeBytes};
}
template <class F>
WeightLayout float_layout() {
  return {InputKind::kFloat, kFloatUnit, 0, kRowsPerTile * kFloatUnit * F::kElementBytes};
}

std::int64_t n_units(const WeightLayout& layout, std::int64_t n_in) {
  return div_up(n_in, layout.unit);
}

}  // namespace

WeightLayout weight_layout(DType dtype) {
  switch (dtype) {
#define SPECDEC_PLAIN(name, ...) \
  case DType::k##name:           \
    return float_layout<Format##name>();
#define SPECDEC_BLOCK32(name, ...) \
  case DType::k##name:             \
    return layout_of<Format32<Block##name>>(InputKind::kQ32);
#define SPECDEC_BLOCK256(name, ...) \
  case DType::k##name:              \
    return layout_of<Format256<Block##name>>(InputKind::kQ256);
#include "tensor/formats.def"
  }
  throw_internal("known dtype", __FILE__, __LINE__);
}

InputKind input_kind(DType dtype) { return weight_layout(dtype).kind; }

std::size_t header_plane_bytes(DType dtype, std::int64_t n_out, std::int64_t n_in) {
  const WeightLayout layout = weight_layout(dtype);
  return aligned(static_cast<std::size_t>(div_up(n_out, kRowsPerTile) * n_units(layout, n_in) *
                                          layout.header_bytes));
}

std::size_t packed_bytes(DType dtype, std::int64_t n_out, std::int64_t n_in) {
  const WeightLayout layout = weight_layout(dtype);
  return header_plane_bytes(dtype, n_out, n_in) +
         aligned(static_cast<std::size_t>(div_up(n_out, kRowsPerTile) * n_units(layout, n_in) *
                                          layout.code_bytes));
}

int k_slices(DType dtype, std::int64_t n_in) {
  const std::int64_t n = n_units(weight_layout(dtype), n_in);
  return static_cast<int>(div_up(n, units_per_slice(n)));
}

std::int64_t k_slice_begin(DType dtype, std::int64_t n_in, int slice) {
  const WeightLayout layout = weight_layout(dtype);
  const std::int64_t n = n_units(layout, n_in);
  const std::int64_t unit = units_per_slice(n) * slice;
  return (unit < n ? unit : n) * layout.unit;
}

InputView input_view(InputKind kind, int n_rows, std::int64_t n_in, std::byte* data) {
  const std::int64_t n_tiles = div_up(n_rows, kColsPerTile);
  InputView view;
  if (kind == InputKind::kFloat) {
    view.n_k = div_up(n_in, kFloatUnit) * kFloatUnit;
    view.x = reinterpret_cast<float*>(data);
    return view;
  }
  view.n_k = kind == InputKind::kQ32 ? div_up(n_in, 64) * 64 : n_in;
  const auto n_codes = static_cast<std::size_t>(n_tiles * kColsPerTile * view.n_k);
  const std::size_t d_bytes = n_codes / (kind == InputKind::kQ32 ? 32 : 256) * sizeof(float);
  view.q = reinterpret_cast<std::uint8_t*>(data);
  view.d = reinterpret_cast<float*>(data + aligned(n_codes));
  view.sums = reinterpret_cast<std::int32_t*>(data + aligned(n_codes) + aligned(d_bytes));
  return view;
}

std::size_t input_bytes(InputKind kind, int n_rows, std::int64_t n_in) {
  const std::int64_t n_tiles = div_up(n_rows, kColsPerTile);
  const InputView view = input_view(kind, n_rows, n_in, nullptr);
  const auto n = static_cast<std::size_t>(n_tiles * kColsPerTile * view.n_k);
  switch (kind) {
    case InputKind::kFloat:
      return aligned(n * sizeof(float));
    case InputKind::kQ32:
      return aligned(n) + 2 * aligned(n / 32 * 4);
    case InputKind::kQ256:
      return aligned(n) + aligned(n / 256 * 4) + aligned(n / 16 * 4);
  }
  throw_internal("known input kind", __FILE__, __LINE__);
}

}  // namespace specdec::cuda
