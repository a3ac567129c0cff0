#include "base/aligned_buffer.h"

#include <cstdlib>
#include <string>

#include "base/error.h"
#include "base/system.h"

namespace specdec {
namespace {
constexpr std::size_t kHugePage = std::size_t{2} << 20;
}

AlignedBuffer::AlignedBuffer(std::size_t n_bytes) : size_(n_bytes) {
  if (n_bytes == 0) return;
  const std::size_t alignment = n_bytes >= kHugePage ? kHugePage : 64;
  const std::size_t rounded =
      n_bytes + alignment - 1 < n_bytes ? 0 : (n_bytes + alignment - 1) / alignment * alignment;
  data_ = rounded == 0 ? nullptr : static_cast<std::byte*>(std::aligned_alloc(alignment, rounded));
  if (data_ == nullptr) {
    throw Error(ErrorCode::kResource, "out of memory: cannot allocate " + std::to_string(n_bytes) +
                                          " bytes; use a smaller model or context");
  }
  if (alignment == kHugePage) advise_huge_pages(data_, rounded);
}

AlignedBuffer::~AlignedBuffer() { std::free(data_); }

}  // namespace specdec
