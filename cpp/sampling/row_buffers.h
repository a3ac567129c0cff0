// Memory of vocabulary-sized rows, used again: fresh pages cost more than the arithmetic on them.
#pragma once

#include <cstddef>
#include <vector>

namespace specdec {

// n elements of unspecified content.
[[nodiscard]] std::vector<double> take_row_buffer(std::size_t n);
// For later take_row_buffer() calls of this thread; small or too many buffers are freed.
void recycle_row_buffer(std::vector<double>&& buffer) noexcept;

}  // namespace specdec
