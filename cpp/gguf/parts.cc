// Models in several files, "NAME-00001-of-00003.gguf" and so on: the first holds the metadata,
// every part its own tensors.
#include <cstdio>
#include <utility>

#include "base/error.h"
#include "gguf/reader.h"

namespace specdec {
namespace {

constexpr std::uint64_t kMostParts = 9999;

// "-00002-of-00003.gguf"; number: from 1.
std::string suffix_of(std::uint64_t number, std::uint64_t count) {
  char text[64];
  std::snprintf(text, sizeof text, "-%05u-of-%05u.gguf", static_cast<unsigned>(number),
                static_cast<unsigned>(count));
  return text;
}

std::string ordinal(std::uint64_t number, std::uint64_t count) {
  return "part " + std::to_string(number) + " of " + std::to_string(count);
}

}  // namespace

void GgufFile::open_parts(const GgufLimits& limits) {
  const std::uint64_t count = get_u64("split.count", 0);
  if (count <= 1) return;
  if (count > kMostParts) {
    throw make_error(ErrorCode::kModelFormat, "limit",
                     "metadata key 'split.count' is " + std::to_string(count) + ", the limit is " +
                         std::to_string(kMostParts),
                     "split.count");
  }
  const std::uint64_t number = require_u64("split.no") + 1;
  const std::string first = suffix_of(1, count);
  if (number != 1) {
    throw make_error(ErrorCode::kModelFormat, "bad_split",
                     "is " + ordinal(number, count) +
                         " of a model; open the first part, whose name ends in '" + first + "'",
                     "split.no");
  }
  if (!path_.ends_with(first)) {
    throw make_error(ErrorCode::kModelFormat, "bad_split",
                     "is " + ordinal(1, count) + " of a model: its name must end in '" + first +
                         "', so that the others are found; give it that name",
                     "split.count");
  }
  const std::string prefix = path_.substr(0, path_.size() - first.size());
  for (std::uint64_t i = 2; i <= count; ++i) {
    const std::string path = prefix + suffix_of(i, count);
    std::shared_ptr<const GgufFile> part;
    try {
      part = open_one(path, limits);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kIo || error.detail().reason == "changed") throw;
      throw make_error(ErrorCode::kIo, "missing_part",
                       ordinal(i, count) +
                           " cannot be opened; all parts must lie in one folder: " + error.what());
    }
    add_part(std::move(part), count);
  }
  tensor_index_.reset(tensors_.size());
  const auto name_of = [&](std::uint32_t i) { return std::string_view(tensors_[i].name); };
  for (std::uint32_t i = 0; i < tensors_.size(); ++i) {
    const auto same = tensor_index_.insert(i, name_of);
    if (!same) continue;
    throw make_error(ErrorCode::kModelFormat, "duplicate_tensor",
                     "tensor '" + printable(tensors_[i].name) + "' is in " +
                         ordinal(tensors_[*same].part + 1, count) + " and in " +
                         ordinal(tensors_[i].part + 1, count));
  }
  const std::uint64_t n_tensors = get_u64("split.tensors.count", tensors_.size());
  if (n_tensors != tensors_.size()) {
    throw make_error(ErrorCode::kModelFormat, "bad_split",
                     "metadata key 'split.tensors.count' is " + std::to_string(n_tensors) +
                         ", and the parts have " + std::to_string(tensors_.size()) + " tensors",
                     "split.tensors.count");
  }
}

void GgufFile::add_part(std::shared_ptr<const GgufFile> part, std::uint64_t count) {
  const std::uint64_t number = others_.size() + 2;
  const std::uint64_t its_count = part->require_u64("split.count");
  const std::uint64_t its_number = part->require_u64("split.no") + 1;
  if (its_number != number || its_count != count) {
    throw part->make_error(ErrorCode::kModelFormat, "bad_split",
                           "says that it is " + ordinal(its_number, its_count) + ", expected " +
                               ordinal(number, count) + " as its name says; fetch it again",
                           "split.no");
  }
  for (const TensorInfo& tensor : part->tensors_) {
    tensors_.push_back(tensor);
    tensors_.back().part = static_cast<std::uint32_t>(number - 1);
  }
  for (const std::string& warning : part->warnings_)
    warnings_.push_back(ordinal(number, count) + ": " + warning);
  others_.push_back(std::move(part));
}

std::uint64_t GgufFile::total_size() const noexcept {
  std::uint64_t n_bytes = file_size();
  for (const auto& other : others_) n_bytes += other->file_size();
  return n_bytes;
}

std::span<const std::byte> GgufFile::tensor_data(const TensorInfo& tensor) const {
  const std::span<const std::byte> bytes = part(tensor.part).bytes_;
  SPECDEC_CHECK(tensor.offset <= bytes.size() && tensor.n_bytes <= bytes.size() - tensor.offset);
  return bytes.subspan(tensor.offset, tensor.n_bytes);
}

void GgufFile::will_need(const TensorInfo& tensor, std::uint64_t from,
                         std::uint64_t n_bytes) const noexcept {
  const GgufFile& file = part(tensor.part);
  if (file.mapping_) file.mapping_->will_need(tensor.offset + from, n_bytes);
}

void GgufFile::release(const TensorInfo& tensor, std::uint64_t from,
                       std::uint64_t n_bytes) const noexcept {
  const GgufFile& file = part(tensor.part);
  if (file.mapping_) file.mapping_->release(tensor.offset + from, n_bytes);
}

}  // namespace specdec
