// Uninitialised memory on cache-line boundaries; large blocks ask for huge pages.
#pragma once

#include <cstddef>
#include <utility>

namespace specdec {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Throws Error(kResource) naming the size when the system has no memory.
  explicit AlignedBuffer(std::size_t n_bytes);
  ~AlignedBuffer();
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  template <class T>
  [[nodiscard]] T* as() const noexcept {
    return reinterpret_cast<T*>(data_);
  }
  // Makes it at least n_bytes long; the content is lost when it grows.
  void require(std::size_t n_bytes) {
    if (size_ < n_bytes) *this = AlignedBuffer(n_bytes);
  }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace specdec
