#include "cli/line_editor/history.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <utility>

#include <filesystem>

#include "base/open_file.h"
#include "tokenizer/utf8.h"

namespace specdec::cli {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{32} << 20;
// Longer messages can be repeated in this session only.
constexpr std::size_t kMaxEntryBytes = std::size_t{256} << 10;

}  // namespace

std::string escape_entry(std::string_view entry) {
  std::string out;
  for (const char c : entry) {
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\\') {
      out += "\\\\";
    } else {
      out += c;
    }
  }
  return out;
}

std::string unescape_entry(std::string_view line) {
  std::string out;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\\' && i + 1 < line.size()) {
      ++i;
      out += line[i] == 'n' ? '\n' : line[i];
    } else {
      out += line[i];
    }
  }
  return out;
}

std::string History::default_path() {
  const char* state = std::getenv("XDG_STATE_HOME");
  if (state != nullptr && state[0] == '/') return std::string(state) + "/specdec/chat_history";
  const char* home = std::getenv("HOME");
  if (home != nullptr && home[0] == '/') {
    return std::string(home) + "/.local/state/specdec/chat_history";
  }
  return {};
}

History::History(std::string path) : path_(std::move(path)) {
  if (path_.empty()) return;
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::path(path_).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  load();
}

void History::load() {
  // O_NONBLOCK: a named pipe must not be waited for.
  const int fd = open_uninterrupted(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
  struct stat info = {};
  if (fd < 0 || ::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    problem_ = fd < 0 ? std::strerror(errno) : "not a regular file";
    if (fd >= 0) ::close(fd);
    return;
  }
  std::string bytes;
  char chunk[65536];
  ssize_t n = 0;
  while (bytes.size() < kMaxFileBytes &&
         ((n = ::read(fd, chunk, sizeof chunk)) > 0 || (n < 0 && errno == EINTR))) {
    if (n > 0) bytes.append(chunk, static_cast<std::size_t>(n));
  }
  ::close(fd);
  std::size_t n_lines = 0;
  for (std::size_t begin = 0; begin < bytes.size(); ++n_lines) {
    std::size_t end = bytes.find('\n', begin);
    if (end == std::string::npos) end = bytes.size();
    std::string entry =
        unescape_entry(replace_invalid_utf8(std::string_view(bytes).substr(begin, end - begin)));
    if (!entry.empty()) entries_.push_back(std::move(entry));
    begin = end + 1;
  }
  if (entries_.size() > kMaxEntries) {
    entries_.erase(entries_.begin(), entries_.end() - static_cast<std::ptrdiff_t>(kMaxEntries));
  }
  // Not each time: other sessions may be appending.
  if (n_lines > 2 * kMaxEntries) rewrite();
}

void History::rewrite() {
  const std::string partial = path_ + "." + std::to_string(::getpid()) + ".partial";
  const int fd = open_uninterrupted(partial.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return;
  std::string all;
  for (const std::string& entry : entries_) all += escape_entry(entry) + "\n";
  const bool written = write_all(fd, all);
  ::close(fd);
  if (!written || ::rename(partial.c_str(), path_.c_str()) != 0) ::unlink(partial.c_str());
}

void History::append(const std::string& entry) {
  if (path_.empty() || !problem_.empty() || entry.size() > kMaxEntryBytes) return;
  const int fd = open_uninterrupted(path_.c_str(),
                                    O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
  if (fd < 0) return;
  (void)write_all(fd, escape_entry(entry) + "\n");
  ::close(fd);
}

void History::add(const std::string& entry) {
  if (entry.empty() || entry[0] == ' ' || (!entries_.empty() && entries_.back() == entry)) return;
  entries_.push_back(entry);
  if (entries_.size() > kMaxEntries) entries_.erase(entries_.begin());
  append(entry);
}

}  // namespace specdec::cli
