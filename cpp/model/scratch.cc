#include "model/scratch.h"

#include <limits>
#include <new>

namespace specdec {

void FloatBuffer::Free::operator()(float* p) const noexcept { ::operator delete[](p, std::align_val_t{64}); }

float* FloatBuffer::reserve(std::size_t n) {
  if (n <= capacity_) return data_.get();
  void* memory = nullptr;
  if (n <= std::numeric_limits<std::size_t>::max() / sizeof(float)) {
    memory = ::operator new[](n * sizeof(float), std::align_val_t{64}, std::nothrow);
  }
  if (memory == nullptr) {
    throw Error(ErrorCode::kResource, "not enough memory for a buffer of " + std::to_string(n) +
                                          " floats; feed fewer rows or ask for fewer outputs at once");
  }
  data_.reset(static_cast<float*>(memory));
  capacity_ = n;
  return data_.get();
}

int Scratch::output_index(int row, bool available, const char* what) const {
  if (!available) throw_invalid(std::string("the last forward computed no ") + what);
  if (row < first_output_row_ || row >= n_rows_) {
    throw_invalid("output row " + std::to_string(row) + " is not in [" + std::to_string(first_output_row_) + ", " +
                  std::to_string(n_rows_) + ")");
  }
  return row - first_output_row_;
}

std::span<const float> Scratch::logits(int row) const {
  const auto index = static_cast<std::size_t>(output_index(row, has_logits_, "logits"));
  return {logits_.data() + index * logits_stride_, n_logits_};
}

TokenId Scratch::argmax(int row) const {
  return argmax_[static_cast<std::size_t>(output_index(row, has_argmax_, "best tokens"))];
}

std::span<const float> Scratch::hidden(int row) const {
  (void)output_index(row, has_hidden_, "hidden states");
  return {hidden_.data() + static_cast<std::size_t>(row) * hidden_stride_, n_hidden_};
}

std::size_t Scratch::n_bytes() const noexcept {
  std::size_t n = rope_table_.capacity();
  for (const FloatBuffer* buffer : {&hidden_, &qkv_, &attention_, &ffn_, &logits_, &cos_sin_}) {
    n += buffer->capacity();
  }
  return n * sizeof(float);
}

}  // namespace specdec
