#include "base/open_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/system.h"

namespace specdec {
namespace {

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a named pipe";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISLNK(mode)) return "a symbolic link";
  return "a device";
}

Error not_a_file(ErrorCode code, const std::string& path, const std::string& text) {
  ErrorDetail detail;
  detail.reason = "not_a_file";
  detail.path = path;
  return {code, printable(path, 512) + ": " + text, std::move(detail)};
}

}  // namespace

const char* file_error_reason(int error_number) {
  switch (error_number) {
    case ENOENT:
      return "not_found";
    case EACCES:
    case EPERM:
    case EROFS:
      return "permission_denied";
    case EISDIR:
      return "is_directory";
    case ENOSPC:
    case EDQUOT:
      return "disk_full";
    case EMFILE:
    case ENFILE:
      return "too_many_files";
    default:
      return "io";
  }
}

void throw_file_error(const std::string& path, const char* what, int error_number) {
  ErrorDetail detail;
  detail.reason = file_error_reason(error_number);
  detail.path = path;
  throw Error(error_number == ENOMEM ? ErrorCode::kResource : ErrorCode::kIo,
              printable(path, 512) + ": " + what + ": " + std::strerror(error_number),
              std::move(detail));
}

int open_uninterrupted(const char* path, int flags, unsigned mode) noexcept {
  int fd = -1;
  do {
    fd = ::open(path, flags, static_cast<mode_t>(mode));
  } while (fd < 0 && errno == EINTR);
  return fd;
}

OpenFile::OpenFile(const std::string& path) {
  // O_NONBLOCK means nothing for a regular file. ENXIO: a socket, or a device without a driver.
  fd_ = open_uninterrupted(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  struct stat info{};
  if (fd_ < 0) {
    const int error_number = errno;
    if (error_number == ENXIO && ::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
      throw not_a_file(ErrorCode::kIo, path,
                       std::string("is ") + kind_of(info.st_mode) + ", not a file");
    }
    throw_file_error(path, "cannot open", error_number);
  }
  try {
    if (::fstat(fd_, &info) != 0) throw_file_error(path, "cannot read its size", errno);
    if (S_ISDIR(info.st_mode)) throw_file_error(path, "cannot open", EISDIR);
    if (!S_ISREG(info.st_mode)) {
      throw not_a_file(ErrorCode::kIo, path,
                       std::string("is ") + kind_of(info.st_mode) + ", not a file");
    }
  } catch (...) {
    ::close(fd_);
    throw;
  }
  size_ = static_cast<std::uint64_t>(info.st_size);
  modified_ns_ = specdec::modified_ns(info);
}

OpenFile::~OpenFile() {
  if (fd_ >= 0) ::close(fd_);
}

int OpenFile::release() noexcept { return std::exchange(fd_, -1); }

bool write_all(int fd, std::string_view text) noexcept {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

void require_replaceable(const std::string& path) {
  struct stat info{};
  if (::lstat(path.c_str(), &info) != 0 || S_ISREG(info.st_mode)) return;
  const std::string text =
      S_ISLNK(info.st_mode)
          ? "is a symbolic link; replacing it would leave the file it points to as it is: remove "
            "the link, or name that file"
          : std::string("is ") + kind_of(info.st_mode) + "; give the name of a file";
  throw not_a_file(ErrorCode::kInvalidArgument, path, text);
}

void require_writable_place(const std::string& path) {
  require_replaceable(path);
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  if (::access(folder.c_str(), W_OK | X_OK) != 0)
    throw_file_error(path, "cannot create a file there", errno);
}

}  // namespace specdec
