#include "sampling/row_buffers.h"

#include <utility>

namespace specdec {
namespace {

constexpr std::size_t kLeast = 8192;  // elements; the allocator handles less well
constexpr std::size_t kKeptBytes = 48U
                                   << 20;  // per thread: 20 rows of 151,936 and their distributions

struct Pool {
  std::vector<std::vector<double>> buffers;
  std::size_t bytes = 0;
  bool* alive;
  explicit Pool(bool* flag) : alive(flag) { *alive = true; }
  ~Pool() { *alive = false; }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
};

// Null while the thread ends: distributions may outlive the pool then.
Pool* pool() {
  thread_local bool alive = true;
  if (!alive) return nullptr;
  thread_local Pool instance(&alive);
  return &instance;
}

}  // namespace

std::vector<double> take_row_buffer(std::size_t n) {
  Pool* const p = pool();
  std::vector<double> buffer;
  if (n >= kLeast && p != nullptr) {
    for (std::size_t i = p->buffers.size(); i-- > 0;) {
      if (p->buffers[i].size() < n) continue;
      buffer = std::move(p->buffers[i]);
      p->buffers.erase(p->buffers.begin() + static_cast<std::ptrdiff_t>(i));
      p->bytes -= buffer.capacity() * sizeof(double);
      break;
    }
  }
  buffer.resize(n);
  return buffer;
}

void recycle_row_buffer(std::vector<double>&& buffer) noexcept {
  if (buffer.size() < kLeast) return;
  Pool* const p = pool();
  const std::size_t bytes = buffer.capacity() * sizeof(double);
  if (p == nullptr || p->bytes + bytes > kKeptBytes) return;
  try {
    p->buffers.push_back(std::move(buffer));
    p->bytes += bytes;
  } catch (...) {  // no memory for the list: the buffer is freed
  }
}

}  // namespace specdec
