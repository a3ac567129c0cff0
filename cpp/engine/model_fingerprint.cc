// What tells models apart: a checksum of everything that their results come from.
#include <algorithm>

#include "base/hash.h"
#include "engine/loaded_model.h"
#include "gguf/reader.h"

namespace specdec {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{16} << 20;  // between two polls

void add(Hash64& hash, std::span<const std::byte> bytes, const std::function<void()>& poll) {
  hash.add_number(bytes.size());
  while (!bytes.empty()) {
    if (poll) poll();
    const std::size_t n = std::min(bytes.size(), kPieceBytes);
    hash.add(bytes.first(n));
    bytes = bytes.subspan(n);
  }
}

}  // namespace

std::uint64_t LoadedModel::fingerprint(const std::function<void()>& poll) const {
  if (const std::uint64_t known = fingerprint_.load(); known != 0) return known;
  Hash64 hash;
  hash.add_text(requantize_);
  // Metadata and the directory of tensors; of a model in parts, those of its first file.
  add(hash, file_->bytes().first(file_->data_start()), poll);
  for (const TensorInfo& tensor : file_->tensors()) {
    hash.add_text(tensor.name);
    hash.add_number(tensor.type_id);
    for (const std::uint64_t n : tensor.shape) hash.add_number(n);
    add(hash, file_->tensor_data(tensor), poll);
  }
  file_->check_whole();
  const std::uint64_t value = std::max<std::uint64_t>(hash.value(), 1);
  fingerprint_.store(value);
  return value;
}

std::uint64_t LoadedModel::vocabulary_fingerprint() const {
  const GgufValue& tokens = file_->require("tokenizer.ggml.tokens");
  Hash64 hash;
  hash.add_number(tokens.count());
  hash.add({tokens.data(), static_cast<std::size_t>(tokens.n_bytes())});
  file_->check_whole();
  return std::max<std::uint64_t>(hash.value(), 1);
}

}  // namespace specdec
