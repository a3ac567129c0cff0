// How many columns characters take on a terminal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace specdec::cli {

// 0 for marks and format characters, 2 for East Asian wide characters and emoji, else 1.
[[nodiscard]] int char_width(std::uint32_t code_point) noexcept;

// A character with the marks that follow it: what a cursor steps over. `text` is valid UTF-8.
struct Cluster {
  std::size_t n_bytes;
  int width;
};
[[nodiscard]] Cluster cluster_at(std::string_view text, std::size_t position) noexcept;
// Where the cluster that ends at `position` > 0 begins.
[[nodiscard]] std::size_t cluster_before(std::string_view text, std::size_t position) noexcept;

// Columns of a text without control characters.
[[nodiscard]] int text_width(std::string_view text) noexcept;

}  // namespace specdec::cli
