#include "backend/cpu/packed_matrix.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "base/thread_pool.h"

namespace specdec {

PackedMatrix::PackedMatrix(DType dtype, std::int64_t n_out, std::int64_t n_in, CpuIsa isa)
    : dtype_(dtype),
      n_out_(n_out),
      n_in_(n_in),
      format_(tile_format(dtype)),
      kernel_(pack_kernels(isa).of[dtype_index(dtype)]),
      pair_rows_(tile_lines(isa) == TileLines::kRowPairs ? format_.pair_rows : nullptr) {
  const DTypeTraits& traits = dtype_traits(dtype);
  SPECDEC_CHECK(n_out > 0 && n_in > 0 && n_in % traits.block_elements == 0);
  row_bytes_ = static_cast<std::size_t>(row_bytes(dtype, static_cast<std::uint64_t>(n_in)));
  input_kind_ = traits.block_elements == 1    ? InputKind::kFloat
                : traits.block_elements == 32 ? InputKind::kQ32
                                              : InputKind::kQ256;
  unit_bytes_ = static_cast<std::size_t>(format_.unit) / traits.block_elements * traits.block_bytes;
  tile_row_bytes_ =
      static_cast<std::size_t>((n_in + format_.unit - 1) / format_.unit) * format_.tile_bytes;
}

PackedMatrix::PackedMatrix(DType dtype, std::int64_t n_out, std::int64_t n_in,
                           std::span<const std::byte> data, CpuIsa isa, int n_threads,
                           Repack repack)
    : PackedMatrix(dtype, n_out, n_in, isa) {
  SPECDEC_CHECK(data.size() / row_bytes_ >= static_cast<std::uint64_t>(n_out));
  data_ = data;
  if (repack == Repack::kOff) return;
  AlignedBuffer buffer(n_tile_bytes());
  ThreadPool::shared().run(n_threads, [&](TaskContext& context) {
    for (std::int64_t i = context.next_chunk(); i < n_tile_rows(); i = context.next_chunk()) {
      pack_tile_row(i, buffer.as<std::uint8_t>() + static_cast<std::size_t>(i) * tile_row_bytes_);
    }
  });
  buffer_ = std::move(buffer);
  tiles_ = buffer_.as<const std::uint8_t>();
  data_ = {};
}

PackedMatrix::PackedMatrix(DType dtype, std::int64_t n_out, std::int64_t n_in, CpuIsa isa,
                           std::span<const std::byte> tiles)
    : PackedMatrix(dtype, n_out, n_in, isa) {
  SPECDEC_CHECK(tiles.size() == n_tile_bytes());
  tiles_ = reinterpret_cast<const std::uint8_t*>(tiles.data());
  SPECDEC_CHECK(reinterpret_cast<std::uintptr_t>(tiles_) % 64 == 0);
}

void PackedMatrix::pack_tile_row(std::int64_t i, std::uint8_t* tiles) const {
  const int n_valid = static_cast<int>(std::min<std::int64_t>(kTileRows, n_out_ - i * kTileRows));
  const std::byte* rows[kTileRows] = {};
  for (int r = 0; r < n_valid; ++r)
    rows[r] = data_.data() + static_cast<std::size_t>(i * kTileRows + r) * row_bytes_;
  const std::int64_t n_whole = n_in_ / format_.unit;
  std::int64_t unit = 0;
  const auto advance = [&](int n_units) {
    for (int u = 0; pair_rows_ != nullptr && u < n_units; ++u)
      pair_rows_(tiles + static_cast<std::size_t>(u) * format_.tile_bytes);
    for (int r = 0; r < n_valid; ++r) rows[r] += static_cast<std::size_t>(n_units) * unit_bytes_;
    tiles += static_cast<std::size_t>(n_units) * format_.tile_bytes;
    unit += n_units;
  };
  if (n_valid == kTileRows && kernel_.pack != nullptr) {
    // The next tile row lies behind this one: one stream to fetch ahead instead of 16.
    const std::byte* next = rows[kTileRows - 1] + row_bytes_;
    const std::size_t n_ahead = static_cast<std::size_t>(kernel_.n_units) * unit_bytes_ * kTileRows;
    while (unit + kernel_.n_units <= n_whole) {
      for (std::size_t b = 0; b < n_ahead; b += 64) __builtin_prefetch(next + b);
      next += n_ahead;
      kernel_.pack(rows, tiles);
      advance(kernel_.n_units);
    }
  }
  while (unit * format_.unit < n_in_) {
    format_.pack(rows, n_valid, std::min(format_.unit, n_in_ - unit * format_.unit), tiles);
    advance(1);
  }
}

}  // namespace specdec
