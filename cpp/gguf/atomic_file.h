// A file that appears under its name only when it is complete.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <utility>

#include "base/open_file.h"
#include "base/system.h"
#include "gguf/rules.h"

namespace specdec {

// A new file that replaces `path` when commit() is called after finish() and vanishes otherwise: it
// has no name until then, where the file system can do that, so that nothing is left of a killed
// process.
class AtomicFile {
 public:
  // `mode`: who may read and write it, but for what the umask takes.
  explicit AtomicFile(const std::string& path, unsigned mode = 0666) : path_(path) {
    open();
    if (mode != 0666 && ::fchmod(fd_, static_cast<mode_t>(mode)) != 0) {
      const int error = errno;
      discard();
      throw_file_error(path_, "cannot set who may read it", error);
    }
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() { discard(); }

  void write(const void* data, std::size_t n_bytes) {
    const auto* next = static_cast<const char*>(data);
    while (n_bytes > 0) {
      const ssize_t written = ::write(fd_, next, std::min(n_bytes, std::size_t{1} << 30));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail("cannot write");
      next += written;
      n_bytes -= static_cast<std::size_t>(written);
      size_ += static_cast<std::uint64_t>(written);
    }
  }

  void pad_to(std::uint64_t alignment) {
    static constexpr std::array<char, gguf_rules::kMaxAlignment> kZeros{};
    const std::uint64_t rest = size_ % alignment;
    if (rest != 0) write(kZeros.data(), alignment - rest);
  }

  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  // Where the data can be read back.
  [[nodiscard]] const std::string& readable() const noexcept {
    return nameless_.empty() ? temporary_ : nameless_;
  }

  // The data is on the disk then.
  void finish() {
    while (!sync_to_disk(fd_)) {
      if (errno != EINTR) fail("cannot sync");
    }
    if (!nameless_.empty()) give_name();
    if (::close(std::exchange(fd_, -1)) != 0) fail("cannot close");
  }
  // Takes the place of what was at the path.
  void commit() {
    if (::rename(temporary_.c_str(), path_.c_str()) != 0)
      fail("cannot rename the finished file to it");
    temporary_.clear();
    const int folder = open_uninterrupted(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return;
    ::fsync(folder);  // some file systems cannot; the data itself is safe
    ::close(folder);
  }

 private:
  void open() {
    require_replaceable(path_);
    const std::size_t slash = path_.rfind('/');
    folder_ = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
    fd_ = open_nameless_file(folder_, nameless_);
    if (fd_ >= 0) return;
    nameless_.clear();
    for (int attempt = 0; attempt < 100 && fd_ < 0; ++attempt) {
      temporary_ = new_name();
      fd_ = open_uninterrupted(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (fd_ < 0 && errno != EEXIST) break;
    }
    if (fd_ < 0) {
      temporary_.clear();
      fail("cannot create a file beside it");
    }
  }
  void discard() noexcept {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
    temporary_.clear();
  }
  [[nodiscard]] std::string new_name() const {
    std::random_device random;
    return folder_ + "/.specdec-" + std::to_string(random()) + ".tmp";
  }

  // link() cannot replace a file, so it takes a name to be renamed.
  void give_name() {
    for (int attempt = 0; attempt < 100; ++attempt) {
      const std::string name = new_name();
      if (::linkat(AT_FDCWD, nameless_.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0) {
        temporary_ = name;
        return;
      }
      if (errno != EEXIST) break;
    }
    fail("cannot name the finished file");
  }

  [[noreturn]] void fail(const char* what) const { throw_file_error(path_, what, errno); }

  std::string path_;
  std::string folder_;
  std::string temporary_;  // its name, if it has one
  std::string nameless_;   // its path by descriptor, if not
  int fd_ = -1;
  std::uint64_t size_ = 0;
};

}  // namespace specdec
