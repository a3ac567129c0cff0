// What the fuzz targets share: bytes are taken from the front of the input, and whatever is no
// Error of a caller's input ends the process, so that the fuzzer keeps what led to it.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace specdec::fuzz {

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : bytes_(data, size) {}

  // 0 when there are no more.
  std::uint8_t byte() {
    if (bytes_.empty()) return 0;
    const std::uint8_t first = bytes_[0];
    bytes_ = bytes_.subspan(1);
    return first;
  }

  std::string_view rest() const {
    return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

[[noreturn]] inline void found(const std::string& what) {
  std::fprintf(stderr, "finding: %s\n", what.c_str());
  std::abort();
}

// Runs it; true unless it ended with an Error of the input, which says something.
template <typename Function>
bool runs(Function function) {
  try {
    function();
    return true;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kInternal) found(std::string("internal: ") + error.what());
    if (std::getenv("SPECDEC_FUZZ_SHOW") != nullptr) std::fprintf(stderr, "%s\n", error.what());
    if (std::string_view(error.what()).empty()) found("an error that says nothing");
    return false;
  }  // anything else escapes, and the fuzzer reports it
}

// A file of this process, in memory where the system has such a folder.
class File {
 public:
  File() {
    const char* folder = ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    path_ = std::string(folder) + "/specdec-fuzz-" + std::to_string(::getpid()) + ".gguf";
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { ::unlink(path_.c_str()); }

  [[nodiscard]] const std::string& path() const { return path_; }

  // A new file each time: what is mapped never changes.
  void write(const void* data, std::size_t size) const {
    ::unlink(path_.c_str());
    const int fd = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ::write(fd, data, size) != static_cast<ssize_t>(size)) std::exit(3);
    ::close(fd);
  }

 private:
  std::string path_;
};

}  // namespace specdec::fuzz
