// Standard input and files, read whole or line by line, within bounds.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

namespace specdec::cli {

// No tokenizer takes more at once.
inline constexpr std::size_t kMaxTextBytes = (std::size_t{128} << 20) - 1;
// More than any context holds.
inline constexpr std::size_t kMaxLineBytes = std::size_t{8} << 20;

// Lines of a file descriptor. Its time is linear in the input, whatever the lines.
class LineReader {
 public:
  explicit LineReader(int fd) : fd_(fd) {}

  // Without its end, "\n" or "\r\n"; nothing at the end of the input. Signals end the process while
  // it waits. Throws Error: kIo, kInvalidArgument for a line of more than kMaxLineBytes.
  std::optional<std::string> next();

 private:
  int fd_;
  std::string buffer_;
  std::size_t begin_ = 0;  // of what was not handed out
  std::size_t seen_ = 0;   // no newline in [begin_, seen_)
  bool at_end_ = false;
};

// All of a file, "-": of standard input. Signals end the process while it waits. Throws Error: kIo,
// kInvalidArgument for more than kMaxTextBytes.
[[nodiscard]] std::string read_all(const std::string& path);

}  // namespace specdec::cli
