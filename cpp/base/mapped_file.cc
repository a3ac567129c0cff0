#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace specdec {
namespace {

const char* reason_of(int error_number) {
  switch (error_number) {
    case ENOENT:
      return "not_found";
    case EACCES:
    case EPERM:
      return "permission_denied";
    case EISDIR:
      return "is_directory";
    default:
      return "io";
  }
}

[[noreturn]] void throw_io(const std::string& path, const char* what, int error_number) {
  ErrorDetail detail;
  detail.reason = reason_of(error_number);
  detail.path = path;
  throw Error(ErrorCode::kIo,
              printable(path, 512) + ": " + what + ": " + std::strerror(error_number),
              std::move(detail));
}

struct FileDescriptor {
  int fd;
  ~FileDescriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const FileDescriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) throw_io(path, "cannot open", errno);
  struct stat info{};
  if (::fstat(file.fd, &info) != 0) throw_io(path, "cannot read its size", errno);
  if (S_ISDIR(info.st_mode)) throw_io(path, "cannot open", EISDIR);
  if (!S_ISREG(info.st_mode)) throw_io(path, "is not a regular file", EINVAL);
  size_ = static_cast<std::size_t>(info.st_size);
  if (size_ == 0) return;
  void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (mapped == MAP_FAILED) throw_io(path, "cannot map", errno);
  data_ = static_cast<const std::byte*>(mapped);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

namespace {
void advise(const std::byte* base, std::size_t offset, std::size_t n_bytes, int advice) noexcept {
  if (base == nullptr || n_bytes == 0) return;
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t begin = offset / page * page;
  ::madvise(const_cast<std::byte*>(base) + begin, n_bytes + (offset - begin), advice);
}
}  // namespace

void MappedFile::will_need(std::size_t offset, std::size_t n_bytes) const noexcept {
  advise(data_, offset, n_bytes, MADV_WILLNEED);
}

void MappedFile::release(std::size_t offset, std::size_t n_bytes) const noexcept {
  advise(data_, offset, n_bytes, MADV_DONTNEED);
}

}  // namespace specdec
