#include "cli/terminal.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "base/open_file.h"
#include "cli/interrupt.h"

namespace specdec::cli {
namespace {

constexpr int kPollMs = 100;
constexpr std::size_t kPieceBytes = 4096;  // PIPE_BUF: a pipe that is ready takes it at once

// Until somebody takes text; false with EINTR when a signal came meanwhile. A signal just before a
// write() that waits would not end it, so the waiting is done here.
bool wait_for_reader(int fd) {
  pollfd ready = {fd, POLLOUT, 0};
  while (::poll(&ready, 1, kPollMs) <= 0) {
    if (!interrupted()) continue;
    errno = EINTR;
    return false;
  }
  return true;
}

// False on an error; EINTR when a signal came while nobody took the text.
bool write_or_stop(int fd, std::string_view text) {
  while (!text.empty()) {
    if (!wait_for_reader(fd)) return false;
    const ssize_t n = ::write(fd, text.data(), std::min(text.size(), kPieceBytes));
    if (n < 0) {
      // EAGAIN: a pipe that its owner made non-blocking, and that another one has filled.
      if (errno == EAGAIN || (errno == EINTR && !interrupted())) continue;
      return false;
    }
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

}  // namespace

bool is_terminal(int fd) { return ::isatty(fd) == 1; }

bool wants_color(int fd, bool no_color_flag) {
  if (no_color_flag || !is_terminal(fd)) return false;
  const char* no_color = std::getenv("NO_COLOR");
  if (no_color != nullptr && *no_color != '\0') return false;
  const char* term = std::getenv("TERM");
  return term == nullptr || std::strcmp(term, "dumb") != 0;
}

void write_stdout(std::string_view text) {
  if (!write_or_stop(STDOUT_FILENO, text)) {
    const int error_number = errno;
    if (error_number == EINTR) throw Error(ErrorCode::kCancelled, "interrupted");
    ErrorDetail detail;
    detail.reason = file_error_reason(error_number);
    throw Error(ErrorCode::kIo,
                std::string("cannot write to standard output: ") + std::strerror(error_number),
                std::move(detail));
  }
}

void write_stderr(std::string_view text) noexcept { (void)write_or_stop(STDERR_FILENO, text); }

void write_stderr(std::initializer_list<std::string_view> pieces) noexcept {
  // One call where possible, so that lines of several processes do not mix.
  char line[4096];
  std::size_t n = 0;
  for (const std::string_view piece : pieces) n += piece.size();
  if (n > sizeof line) {
    for (const std::string_view piece : pieces) write_stderr(piece);
    return;
  }
  char* next = line;
  for (const std::string_view piece : pieces) next = std::copy(piece.begin(), piece.end(), next);
  write_stderr(std::string_view(line, n));
}

void print_note(std::string_view text) { write_stderr("specdec: " + std::string(text) + "\n"); }

void print_warning(std::string_view text) {
  write_stderr("specdec: warning: " + std::string(text) + "\n");
}

ProgressBar::ProgressBar(std::string title, bool enabled)
    : title_(std::move(title)),
      enabled_(enabled && is_terminal(STDERR_FILENO)),
      started_(std::chrono::steady_clock::now()),
      drawn_(started_) {}

ProgressBar::~ProgressBar() { finish(); }

void ProgressBar::update(double fraction) {
  if (!enabled_) return;
  using namespace std::chrono_literals;
  const auto now = std::chrono::steady_clock::now();
  if (now - started_ < 200ms || now - drawn_ < 50ms) return;
  drawn_ = now;
  shown_ = true;
  constexpr int kWidth = 30;
  const int filled = static_cast<int>(std::clamp(fraction, 0.0, 1.0) * kWidth);
  char percent[16];
  std::snprintf(percent, sizeof percent, "%3d %%",
                static_cast<int>(std::clamp(fraction, 0.0, 1.0) * 100));
  std::string line = "\r" + title_ + " [";
  line.append(static_cast<std::size_t>(filled), '#');
  line.append(static_cast<std::size_t>(kWidth - filled), '.');
  write_stderr(line + "] " + percent);
}

void ProgressBar::finish() {
  if (shown_) write_stderr("\r\033[K");
  shown_ = false;
  enabled_ = false;
}

std::string human_bytes(double bytes) {
  constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  int unit = 0;
  while (bytes >= 1000 && unit < 4) {
    bytes /= 1000;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 || bytes >= 100 ? "%.0f %s" : "%.1f %s", bytes,
                kUnits[unit]);
  return text;
}

}  // namespace specdec::cli
