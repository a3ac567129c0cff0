// A terminal that hands over every key at once, and is put back as it was.
#pragma once

#include <termios.h>

namespace specdec::cli {

// While it lives `in_fd` is in raw mode, pastes are marked and SIGWINCH interrupts a read.
class RawTerminal {
 public:
  RawTerminal(int in_fd, int out_fd);
  ~RawTerminal();
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;

  [[nodiscard]] bool ok() const noexcept { return raw_; }
  // Stops the process as Ctrl-Z does, with the terminal as it was, until it goes on.
  void suspend();
  // Whether the window's size changed since take_resized() was asked.
  [[nodiscard]] static bool resized() noexcept;
  static bool take_resized() noexcept;

 private:
  void enter();
  void leave();

  int in_fd_, out_fd_;
  bool raw_ = false;
  termios saved_ = {};
};

struct TerminalSize {
  int columns, rows;
};
[[nodiscard]] TerminalSize terminal_size(int fd) noexcept;

}  // namespace specdec::cli
