// How a text and its cursor fall on the rows of a terminal.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace specdec::cli {

struct Layout {
  std::vector<std::string> rows;  // what to print, at most `columns` wide
  std::vector<int> widths;        // [rows]
  std::size_t cursor_row = 0;
  int cursor_column = 0;
};

// The first row begins with `prompt`, those after a line break with `continuation`. Tabs are shown
// as spaces to the next multiple of 8, other control characters as ^X.
[[nodiscard]] Layout lay_out(std::string_view prompt, std::string_view continuation,
                             std::string_view text, std::size_t cursor, int columns);

// Of more rows than the terminal has, those around the cursor.
[[nodiscard]] Layout visible_part(const Layout& layout, std::size_t n_rows);

}  // namespace specdec::cli
