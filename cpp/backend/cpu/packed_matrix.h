// A weight matrix as tiles of 16 rows (tiles/tile_format.h): repacked once, in memory or kept in a
// file, or a view of the GGUF file's blocks whose tile rows are packed each time they are wanted.
#pragma once

#include <span>

#include "backend/backend.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/packed_input.h"
#include "backend/cpu/tiles/tile_format.h"
#include "base/aligned_buffer.h"

namespace specdec {

// Of the tiles of all formats; another number whenever packing gives other bytes than before.
inline constexpr std::uint64_t kTileLayout = 1;
// And which of their lines.
[[nodiscard]] constexpr std::uint64_t tile_layout(CpuIsa isa) {
  return kTileLayout | static_cast<std::uint64_t>(tile_lines(isa)) << 32;
}

class PackedMatrix final : public WeightMatrix {
 public:
  // data: n_out GGUF rows of n_in weights; with Repack::kOff it must outlive the matrix. Packs on
  // n_threads threads.
  PackedMatrix(DType dtype, std::int64_t n_out, std::int64_t n_in, std::span<const std::byte> data,
               CpuIsa isa, int n_threads, Repack repack);
  // Over tiles that another one packed, which must outlive it.
  PackedMatrix(DType dtype, std::int64_t n_out, std::int64_t n_in, CpuIsa isa,
               std::span<const std::byte> tiles);

  [[nodiscard]] DType dtype() const override { return dtype_; }
  [[nodiscard]] std::int64_t n_out() const override { return n_out_; }
  [[nodiscard]] std::int64_t n_in() const override { return n_in_; }
  [[nodiscard]] std::size_t n_bytes() const override { return packed().size(); }
  [[nodiscard]] bool is_view() const override { return tiles_ == nullptr; }
  [[nodiscard]] std::span<const std::byte> packed() const override {
    if (is_view()) return {};
    return std::as_bytes(std::span(tiles_, n_tile_bytes()));
  }

  [[nodiscard]] std::int64_t n_tile_rows() const { return (n_out_ + kTileRows - 1) / kTileRows; }
  [[nodiscard]] std::size_t tile_row_bytes() const { return tile_row_bytes_; }
  [[nodiscard]] std::size_t n_tile_bytes() const {
    return static_cast<std::size_t>(n_tile_rows()) * tile_row_bytes_;
  }
  // The tiles of one tile row; of a view they are packed into `scratch`.
  [[nodiscard]] const std::uint8_t* tile_row(std::int64_t i, AlignedBuffer& scratch) const {
    if (is_view()) {
      scratch.require(tile_row_bytes_);
      pack_tile_row(i, scratch.as<std::uint8_t>());
      return scratch.as<const std::uint8_t>();
    }
    return tiles_ + static_cast<std::size_t>(i) * tile_row_bytes_;
  }
  [[nodiscard]] InputKind input_kind() const { return input_kind_; }

 private:
  PackedMatrix(DType dtype, std::int64_t n_out, std::int64_t n_in, CpuIsa isa);
  void pack_tile_row(std::int64_t i, std::uint8_t* tiles) const;

  DType dtype_;
  std::int64_t n_out_;
  std::int64_t n_in_;
  InputKind input_kind_;
  const TileFormat& format_;
  PackKernel kernel_;
  void (*pair_rows_)(std::uint8_t* tile);  // nullptr: the lines stay as they are packed
  std::span<const std::byte> data_;
  std::size_t row_bytes_;
  std::size_t unit_bytes_;  // of one unit of k of a row
  std::size_t tile_row_bytes_ = 0;
  AlignedBuffer buffer_;
  const std::uint8_t* tiles_ = nullptr;  // of buffer_ or of a file; null: of a view
};

}  // namespace specdec
