// What the user sees: results on stdout, everything else on stderr.
#pragma once

#include <chrono>
#include <initializer_list>
#include <string>
#include <string_view>

namespace specdec::cli {

[[nodiscard]] bool is_terminal(int fd);

// Colours on `fd`: a terminal that is not "dumb", unless --no-color or a non-empty NO_COLOR.
[[nodiscard]] bool wants_color(int fd, bool no_color_flag);

inline constexpr std::string_view kDraftColor = "\033[32m";  // accepted from a draft
inline constexpr std::string_view kPromptColor = "\033[2m";
inline constexpr std::string_view kResetColor = "\033[0m";

// Writes all of it to stdout and flushes. Throws Error(kIo) when that fails (disk full, closed
// pipe).
void write_stdout(std::string_view text);
// Best effort.
void write_stderr(std::string_view text) noexcept;
// Without allocating.
void write_stderr(std::initializer_list<std::string_view> pieces) noexcept;

// "specdec: <text>" on its own line of stderr.
void print_note(std::string_view text);
void print_warning(std::string_view text);

// A bar on stderr, only on a terminal; it clears itself. Updates at most every 50 ms, and shows
// nothing for work that takes less than 200 ms.
class ProgressBar {
 public:
  ProgressBar(std::string title, bool enabled);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void update(double fraction);
  void finish();

 private:
  std::string title_;
  bool enabled_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point started_, drawn_;
};

// 1234567 -> "1.2 MB"
[[nodiscard]] std::string human_bytes(double bytes);

}  // namespace specdec::cli
