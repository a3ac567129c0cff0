#include "cli/line_editor/layout.h"

#include <algorithm>

#include "cli/line_editor/char_width.h"

namespace specdec::cli {

Layout lay_out(std::string_view prompt, std::string_view continuation, std::string_view text,
               std::size_t cursor, int columns) {
  columns = std::max(columns, 4);
  Layout out;
  const auto begin_row = [&out](std::string_view start) {
    out.rows.emplace_back(start);
    out.widths.push_back(text_width(start));
  };
  begin_row(text_width(prompt) < columns ? prompt : std::string_view());
  for (std::size_t i = 0; i <= text.size();) {
    if (i == cursor) {
      // A cursor behind a full row stands on the next one.
      if (out.widths.back() == columns) begin_row({});
      out.cursor_row = out.rows.size() - 1;
      out.cursor_column = out.widths.back();
    }
    if (i == text.size()) break;
    const Cluster cluster = cluster_at(text, i);
    std::string shown(text.substr(i, cluster.n_bytes));
    int width = cluster.width;
    const auto byte = static_cast<unsigned char>(text[i]);
    i += cluster.n_bytes;
    if (byte == '\n') {
      begin_row(text_width(continuation) < columns ? continuation : std::string_view());
      continue;
    }
    if (byte == '\t') {
      width = std::min(8 - out.widths.back() % 8, columns);
      shown.assign(static_cast<std::size_t>(width), ' ');
    } else if (byte < 32 || byte == 127) {
      shown = {'^', static_cast<char>(byte ^ 64)};
      width = 2;
    }
    if (out.widths.back() + width > columns) begin_row({});
    out.rows.back() += shown;
    out.widths.back() += width;
  }
  return out;
}

Layout visible_part(const Layout& layout, std::size_t n_rows) {
  n_rows = std::max<std::size_t>(n_rows, 1);
  if (layout.rows.size() <= n_rows) return layout;
  // The cursor in the middle, where that leaves no row unused.
  const std::size_t first = std::min(layout.cursor_row - std::min(layout.cursor_row, n_rows / 2),
                                     layout.rows.size() - n_rows);
  Layout out;
  const auto begin = static_cast<std::ptrdiff_t>(first);
  const auto end = static_cast<std::ptrdiff_t>(first + n_rows);
  out.rows.assign(layout.rows.begin() + begin, layout.rows.begin() + end);
  out.widths.assign(layout.widths.begin() + begin, layout.widths.begin() + end);
  out.cursor_row = layout.cursor_row - first;
  out.cursor_column = layout.cursor_column;
  return out;
}

}  // namespace specdec::cli
