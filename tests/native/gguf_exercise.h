// Reads everything of a parsed file, so that a bad bound anywhere is met. Shared by the test module
// and the fuzz replay.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <new>
#include <span>

#include "base/error.h"
#include "gguf/reader.h"

namespace specdec::testing {

// A copy of some bytes that ends where the next page cannot be accessed: reading past the end
// faults in any build.
class GuardedCopy {
 public:
  explicit GuardedCopy(std::span<const std::byte> bytes) : size_(bytes.size()) {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    n_mapped_ = (size_ + page - 1) / page * page + page;
    void* base =
        ::mmap(nullptr, n_mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<std::byte*>(base);
    ::mprotect(base_ + n_mapped_ - page, page, PROT_NONE);
    data_ = base_ + n_mapped_ - page - size_;
    if (size_ > 0) std::memcpy(data_, bytes.data(), size_);
  }
  GuardedCopy(const GuardedCopy&) = delete;
  GuardedCopy& operator=(const GuardedCopy&) = delete;
  ~GuardedCopy() { ::munmap(base_, n_mapped_); }

  [[nodiscard]] std::byte* data() noexcept { return data_; }
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }

 private:
  std::byte* base_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t size_;
  std::size_t n_mapped_ = 0;
};

template <typename Function>
void ignore_error(Function function) {
  try {
    function();
  } catch (const Error&) {
  }
}

// Throws what the reader throws; the getters' Errors are expected and dropped.
inline std::size_t exercise(const GgufFile& file) {
  std::size_t sum = file.alignment();
  for (const auto& entry : file.entries()) {
    sum +=
        entry.key.size() + entry.value.to_display_string().size() + entry.value.type_name().size();
    if (file.find(entry.key) != &entry.value) throw_invalid("find() does not find a key");
    ignore_error([&] { sum += file.require_u64(entry.key); });
    ignore_error([&] { sum += file.get_bool(entry.key, false) ? 1U : 0U; });
    ignore_error([&] { sum += file.require_f32(entry.key) > 0 ? 1U : 0U; });
    ignore_error([&] { sum += file.require_string(entry.key).size(); });
    ignore_error([&] { sum += file.get_f32_array(entry.key).size(); });
    ignore_error([&] { sum += file.get_i32_array(entry.key).size(); });
    ignore_error([&] { sum += file.get_u64_array(entry.key).size(); });
    ignore_error([&] { sum += file.get_bool_array(entry.key).size(); });
    ignore_error([&] {
      for (const auto text : file.get_string_array(entry.key)) {
        for (const char c : text) sum += static_cast<unsigned char>(c);
      }
    });
  }
  ignore_error([&] { sum += file.architecture().size(); });
  for (const auto& tensor : file.tensors()) {
    if (file.find_tensor(tensor.name) != &tensor)
      throw_invalid("find_tensor() does not find a tensor");
    for (const auto byte : file.tensor_data(tensor)) sum += static_cast<std::size_t>(byte);
    ignore_error([&] { check_tensor_values(file, tensor); });
  }
  return sum;
}

// Whether the bytes are accepted. Anything but an Error escapes.
inline bool accepts(std::span<const std::byte> bytes, const GgufLimits& limits = {}) {
  std::shared_ptr<const GgufFile> file;
  try {
    file = GgufFile::parse(bytes, "mutated.gguf", limits);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kModelFormat && error.code() != ErrorCode::kUnsupported) throw;
    if (error.detail().reason.empty()) throw_invalid("a refusal without a reason");
    return false;
  }
  exercise(*file);
  return true;
}

}  // namespace specdec::testing
