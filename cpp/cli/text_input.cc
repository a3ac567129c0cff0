#include "cli/text_input.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "base/open_file.h"
#include "cli/interrupt.h"

namespace specdec::cli {
namespace {

constexpr std::size_t kChunkBytes = 1 << 16;

// Appends what there is; false at the end.
bool read_some(int fd, const std::string& name, std::string& out) {
  const AbortOnInterrupt abort;
  char chunk[kChunkBytes];
  ssize_t n = 0;
  do {
    n = ::read(fd, chunk, sizeof chunk);
  } while (n < 0 && errno == EINTR);
  if (n < 0) throw_file_error(name, "cannot read", errno);
  out.append(chunk, static_cast<std::size_t>(n));
  return n > 0;
}

[[noreturn]] void too_long(const std::string& what, std::size_t max_bytes) {
  throw_invalid(what + " has more than " + std::to_string((max_bytes + 1) >> 20) +
                " MiB: no context holds that; give less");
}

}  // namespace

std::optional<std::string> LineReader::next() {
  while (true) {
    const std::size_t newline = buffer_.find('\n', seen_);
    const bool found = newline != std::string::npos;
    seen_ = found ? newline : buffer_.size();
    if (seen_ - begin_ > kMaxLineBytes) too_long("a line of standard input", kMaxLineBytes);
    if (found || (at_end_ && begin_ < buffer_.size())) {
      std::string line = buffer_.substr(begin_, seen_ - begin_);
      begin_ = seen_ = found ? newline + 1 : buffer_.size();
      if (line.ends_with('\r')) line.pop_back();
      return line;
    }
    if (at_end_) return std::nullopt;
    buffer_.erase(0, begin_);  // less than a chunk and a line, once per chunk
    seen_ -= begin_;
    begin_ = 0;
    at_end_ = !read_some(fd_, "standard input", buffer_);
  }
}

std::string read_all(const std::string& path) {
  const bool is_stdin = path == "-";
  const std::string name = is_stdin ? "standard input" : printable(path, 400);
  int fd = STDIN_FILENO;
  if (!is_stdin) {
    const AbortOnInterrupt abort;  // a FIFO waits for its writer
    do {
      fd = open_uninterrupted(path.c_str(), O_RDONLY | O_CLOEXEC);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) throw_file_error(path, "cannot open", errno);
  }
  struct Closer {
    int fd;
    ~Closer() {
      if (fd != STDIN_FILENO) ::close(fd);
    }
  } const closer{fd};
  std::string text;
  while (read_some(fd, name, text)) {
    if (text.size() > kMaxTextBytes) too_long(name, kMaxTextBytes);
  }
  return text;
}

}  // namespace specdec::cli
