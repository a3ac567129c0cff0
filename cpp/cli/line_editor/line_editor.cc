#include "cli/line_editor/line_editor.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/open_file.h"
#include "cli/line_editor/layout.h"
#include "cli/line_editor/raw_terminal.h"

namespace specdec::cli {
namespace {

// An Escape after which nothing comes for so long was the key itself.
constexpr int kEscapeMs = 60;
// A signal may arrive just before a wait, or at another thread: flags are looked at so often.
constexpr int kLookMs = 200;

}  // namespace

LineEditor::LineEditor(int in_fd, int out_fd, History& history, LineEditorOptions options)
    : in_fd_(in_fd), out_fd_(out_fd), history_(history), options_(std::move(options)) {}

bool LineEditor::usable(int in_fd, int out_fd) {
  const char* term = std::getenv("TERM");
  return ::isatty(in_fd) == 1 && ::isatty(out_fd) == 1 && term != nullptr && *term != '\0' &&
         std::strcmp(term, "dumb") != 0;
}

void LineEditor::write(std::string_view text) const { (void)write_all(out_fd_, text); }

ReadMessage LineEditor::read() {
  RawTerminal terminal(in_fd_, out_fd_);
  buffer_ = EditBuffer();
  draft_.clear();
  history_index_ = history_.size();
  searching_ = false;
  drawn_widths_.clear();
  draw();
  while (true) {
    // All that is there before anything is drawn: a paste is drawn once.
    while (std::optional<Key> key = keys_.next()) {
      std::optional<ReadMessage> done = handle(*key);
      if (suspend_) {
        suspend_ = false;
        finish_line();
        terminal.suspend();
      }
      if (done) return *done;
    }
    draw();
    if (!wait_for_input()) {
      finish_line();
      return {ReadEnd::kStopped, {}};
    }
    if (const std::optional<Key> key = lone_) {
      lone_.reset();
      if (std::optional<ReadMessage> done = handle(*key)) return *done;
      continue;
    }
    char chunk[65536];
    const ssize_t n = ::read(in_fd_, chunk, sizeof chunk);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) {
      finish_line();
      return {ReadEnd::kEndOfInput, {}};
    }
    keys_.feed({chunk, static_cast<std::size_t>(n)});
  }
}

// False when the caller shall stop. Draws the message anew in a window that changed its size.
bool LineEditor::wait_for_input() {
  while (true) {
    pollfd wanted = {in_fd_, POLLIN, 0};
    const int ready = ::poll(&wanted, 1, keys_.undecided() ? kEscapeMs : kLookMs);
    if (options_.should_stop && options_.should_stop()) return false;
    if (ready > 0) return true;
    if (RawTerminal::resized()) draw();
    if (ready == 0) {
      lone_ = keys_.flush();
      if (lone_) return true;
    }
  }
}

std::optional<ReadMessage> LineEditor::handle(const Key& key) {
  if (key.kind != KeyKind::kInterrupt) interrupted_once_ = false;
  if (searching_ && handle_search(key)) return std::nullopt;
  switch (key.kind) {
    case KeyKind::kEnter:
      return accept();
    case KeyKind::kInterrupt:
      return interrupt();
    case KeyKind::kEndOfInput:
      if (buffer_.empty()) {
        finish_line();
        return ReadMessage{ReadEnd::kEndOfInput, {}};
      }
      buffer_.erase();
      return std::nullopt;
    case KeyKind::kSuspend:
      suspend_ = true;
      return std::nullopt;
    default:
      edit(key);
      return std::nullopt;
  }
}

void LineEditor::edit(const Key& key) {
  switch (key.kind) {
    case KeyKind::kText:
    case KeyKind::kPaste:
      return buffer_.insert(key.text);
    case KeyKind::kNewline:
      return buffer_.insert("\n");
    case KeyKind::kTab:
      return complete();
    case KeyKind::kBackspace:
      return buffer_.backspace();
    case KeyKind::kDelete:
      return buffer_.erase();
    case KeyKind::kLeft:
      return buffer_.left();
    case KeyKind::kRight:
      return buffer_.right();
    case KeyKind::kUp:
      if (!buffer_.up()) older();
      return;
    case KeyKind::kDown:
      if (!buffer_.down()) newer();
      return;
    case KeyKind::kPrevious:
      return older();
    case KeyKind::kNext:
      return newer();
    case KeyKind::kHome:
      return buffer_.line_start();
    case KeyKind::kEnd:
      return buffer_.line_end();
    case KeyKind::kWordLeft:
      return buffer_.word_left();
    case KeyKind::kWordRight:
      return buffer_.word_right();
    case KeyKind::kDeleteWordBack:
      return buffer_.delete_word_back();
    case KeyKind::kDeleteWordForward:
      return buffer_.delete_word_forward();
    case KeyKind::kKillToEnd:
      return buffer_.kill_to_line_end();
    case KeyKind::kKillToStart:
      return buffer_.kill_to_line_start();
    case KeyKind::kYank:
      return buffer_.yank();
    case KeyKind::kTranspose:
      return buffer_.transpose();
    case KeyKind::kUndo:
      return buffer_.undo();
    case KeyKind::kSearchBack:
      searching_ = true;
      query_.clear();
      before_search_ = buffer_.text();
      found_ = history_.size();
      return;
    case KeyKind::kClearScreen:
      write("\033[H\033[2J");
      drawn_widths_.clear();
      return;
    default:
      return;
  }
}

std::optional<ReadMessage> LineEditor::interrupt() {
  if (buffer_.empty() && interrupted_once_) {
    finish_line();
    return ReadMessage{ReadEnd::kInterrupted, {}};
  }
  buffer_.line_end();
  draw();
  write("^C");
  finish_line();
  buffer_ = EditBuffer();
  history_index_ = history_.size();
  if (!interrupted_once_) note("Ctrl-C once more leaves; so do Ctrl-D and /exit");
  interrupted_once_ = true;
  return std::nullopt;
}

std::optional<ReadMessage> LineEditor::accept() {
  // A backslash before Enter: the message goes on.
  const std::string& text = buffer_.text();
  if (buffer_.cursor() == text.size() && text.ends_with('\\')) {
    buffer_.backspace();
    buffer_.insert("\n");
    return std::nullopt;
  }
  ReadMessage out{ReadEnd::kMessage, text};
  draw();
  finish_line();
  history_.add(out.text);
  return out;
}

void LineEditor::show_entry(std::size_t index) {
  if (history_index_ == history_.size()) draft_ = buffer_.text();
  history_index_ = index;
  buffer_.assign(index == history_.size() ? draft_ : history_[index]);
}

void LineEditor::older() {
  if (history_index_ > 0) show_entry(history_index_ - 1);
}

void LineEditor::newer() {
  if (history_index_ < history_.size()) show_entry(history_index_ + 1);
}

void LineEditor::search_older() {
  for (std::size_t i = found_; i-- > 0;) {
    if (history_[i].find(query_) != std::string::npos && history_[i] != buffer_.text()) {
      found_ = i;
      buffer_.assign(history_[i]);
      return;
    }
  }
}

// True when the key belonged to the search; otherwise it ended and the key goes on.
bool LineEditor::handle_search(const Key& key) {
  switch (key.kind) {
    case KeyKind::kText:
      query_ += key.text;
      if (found_ == history_.size() || history_[found_].find(query_) == std::string::npos) {
        search_older();
      }
      return true;
    case KeyKind::kSearchBack:
      search_older();
      return true;
    case KeyKind::kBackspace:
      while (!query_.empty() && (static_cast<unsigned char>(query_.back()) & 0xc0) == 0x80) {
        query_.pop_back();
      }
      if (!query_.empty()) query_.pop_back();
      found_ = history_.size();
      buffer_.assign(before_search_);
      if (!query_.empty()) search_older();
      return true;
    case KeyKind::kCancel:
      searching_ = false;
      buffer_.assign(before_search_);
      return true;
    case KeyKind::kEscape:
      searching_ = false;
      return true;
    default:
      searching_ = false;
      return false;
  }
}

void LineEditor::complete() {
  const std::string before = buffer_.text().substr(0, buffer_.cursor());
  const std::vector<std::string> choices =
      options_.complete ? options_.complete(before) : std::vector<std::string>();
  if (choices.empty()) return;
  std::string common = choices[0];
  for (const std::string& choice : choices) {
    std::size_t n = 0;
    while (n < std::min(common.size(), choice.size()) && common[n] == choice[n]) ++n;
    common.resize(n);
  }
  if (common.size() > before.size() && common.starts_with(before)) {
    buffer_.insert(std::string_view(common).substr(before.size()));
  } else if (choices.size() > 1) {
    std::string all;
    for (const std::string& choice : choices) all += (all.empty() ? "" : "  ") + choice;
    finish_line();
    note(all);
  }
}

void LineEditor::draw() {
  const TerminalSize size = terminal_size(out_fd_);
  std::string out = "\r";
  if (!drawn_widths_.empty()) {
    // In a window that became narrower a row takes several.
    std::size_t rows_above = drawn_cursor_row_;
    if (RawTerminal::take_resized()) {
      for (std::size_t i = 0; i < drawn_cursor_row_; ++i) {
        rows_above += static_cast<std::size_t>(std::max(drawn_widths_[i] - 1, 0) / size.columns);
      }
    }
    if (rows_above > 0) out += "\033[" + std::to_string(rows_above) + "A";
  }
  const std::string prompt = searching_ ? "(search: " + query_ + ") " : options_.prompt;
  // The last column stays free: terminals differ in what they do behind it.
  const Layout layout = visible_part(
      lay_out(prompt, options_.continuation, buffer_.text(), buffer_.cursor(), size.columns - 1),
      static_cast<std::size_t>(std::max(size.rows - 1, 1)));
  out += "\033[J";
  for (std::size_t i = 0; i < layout.rows.size(); ++i) {
    if (i > 0) out += "\r\n";
    out += layout.rows[i];
  }
  const std::size_t below = layout.rows.size() - 1 - layout.cursor_row;
  if (below > 0) out += "\033[" + std::to_string(below) + "A";
  out += "\r";
  if (layout.cursor_column > 0) out += "\033[" + std::to_string(layout.cursor_column) + "C";
  drawn_widths_ = layout.widths;
  drawn_cursor_row_ = layout.cursor_row;
  write(out);
}

void LineEditor::finish_line() {
  if (drawn_widths_.empty()) return;
  const std::size_t below = drawn_widths_.size() - 1 - drawn_cursor_row_;
  write((below > 0 ? "\033[" + std::to_string(below) + "B" : std::string()) + "\r\n");
  drawn_widths_.clear();
}

void LineEditor::note(std::string_view text) { write(std::string(text) + "\r\n"); }

}  // namespace specdec::cli
