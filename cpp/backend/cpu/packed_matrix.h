// A weight matrix repacked into tiles of 16 rows (quant/tile_format.h).
#pragma once

#include <span>

#include "backend/backend.h"
#include "backend/cpu/panel.h"
#include "base/aligned_buffer.h"
#include "quant/tile_format.h"

namespace specdec {

class PackedMatrix final : public WeightMatrix {
 public:
  // data: n_out GGUF rows of n_in weights. Packs on n_threads threads.
  PackedMatrix(DType dtype, std::int64_t n_out, std::int64_t n_in, std::span<const std::byte> data,
               int n_threads);

  [[nodiscard]] DType dtype() const override { return dtype_; }
  [[nodiscard]] std::int64_t n_out() const override { return n_out_; }
  [[nodiscard]] std::int64_t n_in() const override { return n_in_; }
  [[nodiscard]] std::size_t n_bytes() const override { return buffer_.size(); }

  [[nodiscard]] std::int64_t n_tile_rows() const { return (n_out_ + kTileRows - 1) / kTileRows; }
  [[nodiscard]] std::size_t tile_row_bytes() const { return tile_row_bytes_; }
  [[nodiscard]] const std::uint8_t* tile_row(std::int64_t i) const {
    return buffer_.as<const std::uint8_t>() + static_cast<std::size_t>(i) * tile_row_bytes_;
  }
  [[nodiscard]] PanelKind panel_kind() const { return panel_kind_; }

 private:
  void pack_tile_row(std::int64_t i, std::span<const std::byte> data);

  DType dtype_;
  std::int64_t n_out_;
  std::int64_t n_in_;
  PanelKind panel_kind_;
  std::size_t tile_row_bytes_ = 0;
  AlignedBuffer buffer_;
};

}  // namespace specdec
