// Opening files that a user names.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace specdec {

// ErrorDetail::reason of a failed call: not_found, permission_denied, is_directory, disk_full,
// too_many_files, io.
[[nodiscard]] const char* file_error_reason(int error_number);

// Throws Error(kIo), or kResource without memory, naming the path and the system's reason.
[[noreturn]] void throw_file_error(const std::string& path, const char* what, int error_number);

// open(2) for as long as a signal interrupts it, as it may on network file systems.
[[nodiscard]] int open_uninterrupted(const char* path, int flags, unsigned mode = 0) noexcept;

// A regular file open for reading. A pipe is refused at once, where open() would wait for a writer.
class OpenFile {
 public:
  explicit OpenFile(const std::string& path);
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] std::uint64_t modified_ns() const noexcept { return modified_ns_; }
  // The descriptor is the caller's from now on.
  [[nodiscard]] int release() noexcept;

 private:
  int fd_ = -1;
  std::uint64_t size_ = 0;
  std::uint64_t modified_ns_ = 0;
};

// All of it, whatever interrupts; false, with errno, where that fails.
[[nodiscard]] bool write_all(int fd, std::string_view text) noexcept;

// For a path that a file is to be written to: throws Error(kInvalidArgument, not_a_file) if it
// names something that must not be replaced: a folder, a device, a pipe, a socket, a symbolic link.
void require_replaceable(const std::string& path);
// The same, and that a file can be made in its folder. Writing may fail all the same.
void require_writable_place(const std::string& path);

}  // namespace specdec
