#include "base/mapped_file.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "base/error.h"
#include "base/mapped_faults.h"
#include "base/open_file.h"

namespace specdec {

MappedFile::MappedFile(const std::string& path) : path_(path) {
  OpenFile file(path);
  size_ = static_cast<std::size_t>(file.size());
  modified_ns_ = file.modified_ns();
  if (size_ == 0) return;
  void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.fd(), 0);
  if (mapped == MAP_FAILED) throw_file_error(path, "cannot map", errno);
  data_ = static_cast<const std::byte*>(mapped);
  watch_ = watch_mapping(data_, size_);
  fd_ = file.release();
}

MappedFile::~MappedFile() {
  unwatch_mapping(watch_);
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  if (fd_ >= 0) ::close(fd_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      modified_ns_(other.modified_ns_),
      fd_(std::exchange(other.fd_, -1)),
      watch_(std::exchange(other.watch_, nullptr)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(modified_ns_, other.modified_ns_);
  std::swap(fd_, other.fd_);
  std::swap(watch_, other.watch_);
  return *this;
}

void MappedFile::check_whole() const {
  if (data_ == nullptr) return;
  watch_faults();  // somebody may have put another handler over it
  struct stat info{};
  const bool known = ::fstat(fd_, &info) == 0;
  const bool cut = known && static_cast<std::uint64_t>(info.st_size) < size_;
  if (!cut && (watch_ == nullptr || !watch_->faulted.load(std::memory_order_acquire))) return;
  ErrorDetail detail;
  detail.reason = "changed";
  detail.path = path_;
  const std::string what =
      cut ? "the file was cut off while it was in use: it has " + std::to_string(info.st_size) +
                " of " + std::to_string(size_) +
                " bytes; write a new file beside it and rename that, and load the model again"
          : "the file could not be read while it was in use (a failing disk, or it was cut off and "
            "written again); load the model again";
  throw Error(ErrorCode::kIo, printable(path_, 512) + ": " + what, std::move(detail));
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
