// Asks for a message on a terminal: editing, history, pastes of several lines.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/line_editor/edit_buffer.h"
#include "cli/line_editor/history.h"
#include "cli/line_editor/keys.h"

namespace specdec::cli {

struct LineEditorOptions {
  std::string prompt = "> ";
  std::string continuation = ". ";  // before the further lines of a message
  // What the text before the cursor could become, the whole of it; Tab asks.
  std::function<std::vector<std::string>(const std::string& before_cursor)> complete;
  // Asked after each key and each interrupted wait; true ends read() with kStopped.
  std::function<bool()> should_stop;
};

enum class ReadEnd {
  kMessage,
  kEndOfInput,   // Ctrl-D on an empty line, or the terminal is gone
  kInterrupted,  // Ctrl-C twice; the first one clears the line
  kStopped,
};

struct ReadMessage {
  ReadEnd end;
  std::string text;
};

class LineEditor {
 public:
  // `in_fd` and `out_fd` are terminals.
  LineEditor(int in_fd, int out_fd, History& history, LineEditorOptions options);

  // The terminal is in raw mode during this call only.
  [[nodiscard]] ReadMessage read();

  // Whether this terminal can be edited on: not "dumb".
  [[nodiscard]] static bool usable(int in_fd, int out_fd);

 private:
  [[nodiscard]] bool wait_for_input();
  [[nodiscard]] std::optional<ReadMessage> handle(const Key& key);
  [[nodiscard]] std::optional<ReadMessage> interrupt();
  [[nodiscard]] std::optional<ReadMessage> accept();
  void edit(const Key& key);
  [[nodiscard]] bool handle_search(const Key& key);
  void search_older();
  void complete();
  void older();
  void newer();
  void show_entry(std::size_t index);
  void draw();
  void finish_line();  // the cursor below everything that was drawn
  void note(std::string_view text);
  void write(std::string_view text) const;

  int in_fd_, out_fd_;
  History& history_;
  LineEditorOptions options_;
  KeyDecoder keys_;
  std::optional<Key> lone_;  // an Escape that turned out to be one
  EditBuffer buffer_;

  std::vector<int> drawn_widths_;  // of the rows on the screen
  std::size_t drawn_cursor_row_ = 0;

  std::size_t history_index_ = 0;  // size(): the new message
  std::string draft_;              // the new message while older ones are shown
  bool interrupted_once_ = false;
  bool suspend_ = false;

  bool searching_ = false;
  std::string query_;
  std::size_t found_ = 0;  // index of the entry shown; size(): none
  std::string before_search_;
};

}  // namespace specdec::cli
