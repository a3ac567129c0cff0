#include "cli/line_editor/raw_terminal.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <string_view>

namespace specdec::cli {
namespace {

std::atomic<bool> size_changed{false};
static_assert(std::atomic<bool>::is_always_lock_free);

extern "C" void on_resize(int) { size_changed.store(true); }

struct sigaction resize_action(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  return action;
}

void send(int fd, std::string_view text) { (void)!::write(fd, text.data(), text.size()); }

}  // namespace

RawTerminal::RawTerminal(int in_fd, int out_fd) : in_fd_(in_fd), out_fd_(out_fd) { enter(); }

RawTerminal::~RawTerminal() { leave(); }

void RawTerminal::enter() {
  if (raw_ || ::tcgetattr(in_fd_, &saved_) != 0) return;
  termios raw = saved_;
  raw.c_iflag &= ~static_cast<tcflag_t>(BRKINT | ICRNL | INLCR | IGNCR | INPCK | ISTRIP | IXON);
  raw.c_cflag |= CS8;
  raw.c_lflag &= ~static_cast<tcflag_t>(ECHO | ICANON | IEXTEN | ISIG);
  raw.c_cc[VMIN] = 1;
  raw.c_cc[VTIME] = 0;
  // What was typed ahead stays.
  if (::tcsetattr(in_fd_, TCSADRAIN, &raw) != 0) return;
  raw_ = true;
  const struct sigaction action = resize_action(on_resize);
  ::sigaction(SIGWINCH, &action, nullptr);
  send(out_fd_, "\033[?2004h");
}

void RawTerminal::leave() {
  if (!raw_) return;
  raw_ = false;
  send(out_fd_, "\033[?2004l");
  const struct sigaction action = resize_action(SIG_DFL);
  ::sigaction(SIGWINCH, &action, nullptr);
  ::tcsetattr(in_fd_, TCSADRAIN, &saved_);
}

void RawTerminal::suspend() {
  leave();
  ::raise(SIGTSTP);
  enter();
}

bool RawTerminal::resized() noexcept { return size_changed.load(); }

bool RawTerminal::take_resized() noexcept { return size_changed.exchange(false); }

TerminalSize terminal_size(int fd) noexcept {
  winsize size = {};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) return {80, 24};
  return {size.ws_col, size.ws_row};
}

}  // namespace specdec::cli
