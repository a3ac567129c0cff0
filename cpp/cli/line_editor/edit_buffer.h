// The text being edited, its cursor and what can be done to it. Knows nothing of terminals.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace specdec::cli {

// Text is valid UTF-8; the cursor is a byte offset between two clusters. Every change can be
// undone; typing in a row is one change.
class EditBuffer {
 public:
  [[nodiscard]] const std::string& text() const noexcept { return text_; }
  [[nodiscard]] std::size_t cursor() const noexcept { return cursor_; }
  [[nodiscard]] bool empty() const noexcept { return text_.empty(); }

  void assign(std::string text);  // the cursor goes to its end
  void insert(std::string_view text);
  void backspace();
  void erase();  // the cluster under the cursor
  void delete_word_back();
  void delete_word_forward();
  void kill_to_line_end();
  void kill_to_line_start();
  void yank();
  void transpose();
  void undo();

  void left();
  void right();
  void word_left();
  void word_right();
  void line_start();
  void line_end();
  // One line up or down, to the same column as far as there is one; false on the first and last.
  bool up();
  bool down();

 private:
  struct State {
    std::string text;
    std::size_t cursor;
  };

  enum class Change { kTyping, kOther };

  void remember(Change change);
  void remove(std::size_t begin, std::size_t end);
  void kill(std::size_t begin, std::size_t end);
  void to_column(std::size_t line_begin, int column);
  [[nodiscard]] std::size_t line_begin(std::size_t position) const noexcept;
  [[nodiscard]] std::size_t line_end_of(std::size_t position) const noexcept;
  [[nodiscard]] std::size_t word_start() const noexcept;
  [[nodiscard]] std::size_t word_end() const noexcept;

  std::string text_;
  std::size_t cursor_ = 0;
  std::string killed_;
  std::vector<State> undo_;
  std::size_t undo_bytes_ = 0;
  Change last_change_ = Change::kOther;
};

}  // namespace specdec::cli
