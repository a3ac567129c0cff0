#include "backend/cpu/packed_matrix.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "base/thread_pool.h"

namespace specdec {

PackedMatrix::PackedMatrix(DType dtype, std::int64_t n_out, std::int64_t n_in,
                           std::span<const std::byte> data, int n_threads)
    : dtype_(dtype), n_out_(n_out), n_in_(n_in) {
  const DTypeTraits& traits = dtype_traits(dtype);
  SPECDEC_CHECK(n_out > 0 && n_in > 0 && n_in % traits.block_elements == 0);
  SPECDEC_CHECK(data.size() >= static_cast<std::uint64_t>(n_out) *
                                   row_bytes(dtype, static_cast<std::uint64_t>(n_in)));
  panel_kind_ = traits.block_elements == 1    ? PanelKind::kFloat
                : traits.block_elements == 32 ? PanelKind::kQ32
                                              : PanelKind::kQ256;
  const TileFormat& format = tile_format(dtype);
  tile_row_bytes_ =
      static_cast<std::size_t>((n_in + format.unit - 1) / format.unit) * format.tile_bytes;
  buffer_ = AlignedBuffer(static_cast<std::size_t>(n_tile_rows()) * tile_row_bytes_);
  ThreadPool::shared().run(n_threads, [&](TaskContext& context) {
    for (std::int64_t i = context.next_chunk(); i < n_tile_rows(); i = context.next_chunk())
      pack_tile_row(i, data);
  });
}

void PackedMatrix::pack_tile_row(std::int64_t i, std::span<const std::byte> data) {
  const TileFormat& format = tile_format(dtype_);
  const auto stride = row_bytes(dtype_, static_cast<std::uint64_t>(n_in_));
  const int n_valid = static_cast<int>(std::min<std::int64_t>(kTileRows, n_out_ - i * kTileRows));
  const std::byte* rows[kTileRows] = {};
  for (int r = 0; r < n_valid; ++r)
    rows[r] = data.data() + static_cast<std::uint64_t>(i * kTileRows + r) * stride;
  auto* tile = buffer_.as<std::uint8_t>() + static_cast<std::size_t>(i) * tile_row_bytes_;
  const DTypeTraits& traits = dtype_traits(dtype_);
  const auto unit_bytes =
      static_cast<std::size_t>(format.unit) / traits.block_elements * traits.block_bytes;
  for (std::int64_t k = 0; k < n_in_; k += format.unit, tile += format.tile_bytes) {
    format.pack(rows, n_valid, std::min(format.unit, n_in_ - k), tile);
    for (int r = 0; r < n_valid; ++r) rows[r] += unit_bytes;
  }
}

}  // namespace specdec
