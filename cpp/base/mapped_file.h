// A read-only private mapping of a whole file. A file that is cut off while it is mapped does not
// end the process: zeros are read where it has no bytes any more, until check_whole() throws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace specdec {

struct WatchedMapping;

class MappedFile {
 public:
  // Throws Error(kIo) naming the path and the system's reason; an empty file maps to an empty span.
  // Anything but a regular file is refused, without waiting for somebody to write into a pipe.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

  // When the file was changed last, in nanoseconds since 1970.
  [[nodiscard]] std::uint64_t modified_ns() const noexcept { return modified_ns_; }

  // Throws Error(kIo, changed) if the file has become shorter since it was mapped, or could not be
  // read: whatever was made from bytes() meanwhile is worthless.
  void check_whole() const;

  // Tells the system that [offset, offset + n_bytes) will be read soon / is no longer needed in
  // memory. Hints: failures are ignored.
  void will_need(std::size_t offset, std::size_t n_bytes) const noexcept;
  void release(std::size_t offset, std::size_t n_bytes) const noexcept;

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::uint64_t modified_ns_ = 0;
  int fd_ = -1;
  WatchedMapping* watch_ = nullptr;
};

}  // namespace specdec
