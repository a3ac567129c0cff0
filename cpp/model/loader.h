// Brings tensors of a file into the layout of a backend, one after the other.
#pragma once

#include <cmath>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/hash.h"
#include "model/weights.h"
#include "quant/codec.h"
#include "quant/requantize.h"

namespace specdec {

class Loader {
 public:
  Loader(const GgufFile& file, const ModelConfig& config, Backend& backend,
         const LoadOptions& options, ModelMemory& memory, std::vector<std::string>& warnings,
         std::vector<std::vector<std::byte>>& requantized, const PackedFile* packed)
      : file_(file),
        host_(backend),
        backend_(&backend),
        options_(options),
        memory_(memory),
        warnings_(warnings),
        requantized_(requantized),
        packed_(packed) {
    std::string embedding;  // stays in the file, unless it is the head too
    for (const Slot& slot : config.slots)
      if (slot.part == Part::kEmbedding && !config.tied_head) embedding = slot.name;
    for (const TensorInfo& tensor : file.tensors()) {
      if (is_unused(tensor.name, config) || tensor.dtype == kIdType) continue;
      if (tensor.name != embedding) progress_.n_bytes_total += tensor.n_bytes;
    }
  }

  // What follows goes there; null: to the CPU.
  void use(DeviceBackend* device) {
    device_ = device;
    backend_ = device != nullptr ? static_cast<Backend*>(device) : &host_;
  }

  // n_rows rows of a matrix; more of it follows when these are not `last`. exact: never rewritten.
  std::unique_ptr<WeightMatrix> matrix(const std::string& name, std::uint64_t n_rows,
                                       std::uint64_t first_row = 0, bool last = true,
                                       bool exact = false) {
    const TensorInfo& tensor = *file_.find_tensor(name);
    if (first_row == 0) check(tensor);
    const std::uint64_t n_in = tensor.shape[0];
    const std::uint64_t n_bytes = row_bytes(tensor.dtype, n_in) * n_rows;
    const std::uint64_t first_byte = row_bytes(tensor.dtype, n_in) * first_row;
    const auto out = static_cast<std::int64_t>(n_rows);
    const auto in = static_cast<std::int64_t>(n_in);
    const bool rewrite = !exact && requantizes(tensor);
    const std::uint64_t key = packed_key(name, first_row, 0);
    auto matrix = kept(rewrite ? *options_.requantize : tensor.dtype, out, in, key);
    if (matrix != nullptr) {
      if (rewrite) count_saved(tensor.dtype, out, in);
      if (last) done(tensor);
      return matrix;
    }
    file_.will_need(tensor, first_byte, n_bytes);
    const std::span<const std::byte> data = file_.tensor_data(tensor).subspan(first_byte, n_bytes);
    if (rewrite) {
      auto rewritten = requantized(tensor.dtype, out, in, data);
      note(key, *rewritten);
      if (last) finish(tensor);
      return rewritten;
    }
    matrix = backend_->load_matrix(tensor.dtype, out, in, data);
    count(matrix->n_bytes());
    note(key, *matrix);
    if (matrix->is_view()) {
      // The embedding is counted once, also when it is the head.
      if (name != "token_embd.weight") memory_.mapped_bytes += n_bytes;
      if (last) done(tensor);
    } else if (last) {
      finish(tensor);
    }
    return matrix;
  }

  // From the file of packed weights; null: it is not there.
  std::unique_ptr<WeightMatrix> kept(DType dtype, std::int64_t n_out, std::int64_t n_in,
                                     std::uint64_t key) {
    if (packed_ == nullptr || device_ != nullptr) return nullptr;
    const std::size_t n_bytes = backend_->packed_bytes(dtype, n_out, n_in);
    const std::span<const std::byte> bytes = packed_->find(key, n_bytes);
    if (bytes.empty() || (options_.check_tensors && !packed_->is_intact(key))) return nullptr;
    auto matrix = backend_->use_packed(dtype, n_out, n_in, bytes);
    count(n_bytes);
    memory_.kept_bytes += n_bytes;
    note(key, *matrix);
    return matrix;
  }

  // Rows of a matrix, or of the e-th of a stack, which are rewritten or not.
  [[nodiscard]] static std::uint64_t packed_key(const std::string& name, std::uint64_t first_row,
                                                std::uint64_t expert) {
    Hash64 hash;
    hash.add_text(name);
    hash.add_number(first_row);
    hash.add_number(expert);
    return hash.value();
  }

  // Remembers what can be kept.
  void note(std::uint64_t key, const WeightMatrix& matrix) {
    if (options_.keep_packed && device_ == nullptr && !matrix.packed().empty())
      parts_.push_back({key, matrix.packed()});
  }
  [[nodiscard]] std::span<const PackedPart> parts() const { return parts_; }

  // The embedding where the device looks rows up: as it is in the file. Not a part of the progress.
  std::unique_ptr<WeightMatrix> embedding(const TensorInfo& tensor, std::int64_t n_rows) {
    const auto n_in = static_cast<std::int64_t>(tensor.shape[0]);
    const std::size_t n_bytes = static_cast<std::size_t>(row_bytes(tensor.dtype, tensor.shape[0])) *
                                static_cast<std::size_t>(n_rows);
    auto matrix =
        backend_->load_matrix(tensor.dtype, n_rows, n_in, file_.tensor_data(tensor).first(n_bytes));
    count(matrix->n_bytes());
    file_.release(tensor, 0, tensor.n_bytes);
    return matrix;
  }

  [[nodiscard]] bool requantizes(const TensorInfo& tensor) const {
    return options_.requantize &&
           requantize_pays(tensor.dtype, static_cast<std::int64_t>(tensor.shape[0]),
                           *options_.requantize);
  }

  std::unique_ptr<WeightMatrix> requantized(DType from, std::int64_t n_rows, std::int64_t n_in,
                                            std::span<const std::byte> data) {
    const DType to = *options_.requantize;
    std::vector<std::byte> rows = requantize(from, data, n_rows, n_in, to, host_.info().n_threads);
    auto matrix = backend_->load_matrix(to, n_rows, n_in, rows);
    count(matrix->n_bytes());
    count_saved(from, n_rows, n_in);
    if (matrix->is_view()) {
      memory_.weights_bytes += rows.size();
      requantized_.push_back(std::move(rows));  // moving keeps the place
    }
    return matrix;
  }

  void count_saved(DType from, std::int64_t n_rows, std::int64_t n_in) {
    const auto n = static_cast<std::uint64_t>(n_in);
    memory_.requantize_saved_bytes +=
        static_cast<std::size_t>(n_rows) *
        static_cast<std::size_t>(row_bytes(from, n) - row_bytes(*options_.requantize, n));
  }

  // The matrices of a stack, one by one: those for which there is no room stay in the file.
  void experts(const Slot& slot, PartWeights& to) {
    const TensorInfo& tensor = *file_.find_tensor(slot.name);
    if (slot.first_row == 0) check(tensor);
    if (device_ != nullptr) {
      to.add_expert(slot.part, stack(slot, tensor));
      if (slot.end_row() == slot.shape[1]) finish(tensor);
      return;
    }
    const auto n_in = static_cast<std::int64_t>(slot.shape[0]);
    const auto n_out = static_cast<std::int64_t>(slot.end_row() - slot.first_row);
    const auto one_row = static_cast<std::size_t>(row_bytes(tensor.dtype, slot.shape[0]));
    const std::size_t n_bytes = one_row * static_cast<std::size_t>(n_out);
    const std::span<const std::byte> data = file_.tensor_data(tensor);
    for (std::size_t e = 0; e < slot.shape[2]; ++e) {
      const std::size_t at = (e * slot.shape[1] + slot.first_row) * one_row;
      const std::span<const std::byte> expert = data.subspan(at, n_bytes);
      const bool mapped = slot.is_chosen() && expert_bytes_ + n_bytes > options_.max_expert_bytes;
      const bool rewritten = requantizes(tensor) && !mapped;
      const std::uint64_t key = packed_key(slot.name, slot.first_row, e + 1);
      auto matrix = mapped
                        ? nullptr
                        : kept(rewritten ? *options_.requantize : tensor.dtype, n_out, n_in, key);
      const bool was_kept = matrix != nullptr;
      if (!mapped && !was_kept) file_.will_need(tensor, at, n_bytes);
      if (was_kept) {
        if (rewritten) count_saved(tensor.dtype, n_out, n_in);
      } else if (rewritten) {
        matrix = requantized(tensor.dtype, n_out, n_in, expert);
      } else {
        matrix = mapped ? backend_->map_matrix(tensor.dtype, n_out, n_in, expert)
                        : backend_->load_matrix(tensor.dtype, n_out, n_in, expert);
        count(matrix->n_bytes());
      }
      if (!mapped && !was_kept) note(key, *matrix);
      if (matrix->is_view() && !rewritten) {
        memory_.mapped_bytes += n_bytes;
        memory_.mapped_expert_bytes += n_bytes;
      } else {
        if (slot.is_chosen()) expert_bytes_ += matrix->n_bytes();
        if (!was_kept) file_.release(tensor, at, n_bytes);
      }
      to.add_expert(slot.part, std::move(matrix));
      if (e % 16 == 15) report();
    }
    if (slot.end_row() == slot.shape[1]) done(tensor);
  }

  // The matrices of a stack on the device, as one.
  std::unique_ptr<WeightMatrix> stack(const Slot& slot, const TensorInfo& tensor) {
    const auto n_in = static_cast<std::int64_t>(slot.shape[0]);
    const auto n_out = static_cast<std::int64_t>(slot.end_row() - slot.first_row);
    const auto n = static_cast<int>(slot.shape[2]);
    std::span<const std::byte> data = file_.tensor_data(tensor);
    file_.will_need(tensor, 0, tensor.n_bytes);
    std::vector<std::byte> part;
    if (slot.n_rows != 0) {
      part = rows_of_stack(slot, data);
      data = part;
    }
    DType dtype = tensor.dtype;
    std::vector<std::byte> rows;
    if (requantizes(tensor)) {
      rows = requantize(dtype, data, n * n_out, n_in, *options_.requantize, host_.info().n_threads);
      memory_.requantize_saved_bytes += data.size() - rows.size();
      dtype = *options_.requantize;
      data = rows;
    }
    auto matrix = device_->load_stack(dtype, n_out, n_in, n, data);
    count(matrix->n_bytes());
    return matrix;
  }

  // The slot's rows of each matrix.
  static std::vector<std::byte> rows_of_stack(const Slot& slot, std::span<const std::byte> data) {
    const std::size_t one_row = data.size() / (slot.shape[1] * slot.shape[2]);
    std::vector<std::byte> out;
    out.reserve(slot.n_rows * slot.shape[2] * one_row);
    for (std::uint64_t e = 0; e < slot.shape[2]; ++e) {
      const auto rows =
          data.subspan((e * slot.shape[1] + slot.first_row) * one_row, slot.n_rows * one_row);
      out.insert(out.end(), rows.begin(), rows.end());
    }
    return out;
  }

  // What the file holds of a slot; n_rows rows of a matrix, a vector times `factor`.
  void slot(const Slot& slot, std::uint64_t n_rows, PartWeights& to, float factor = 1) {
    if (file_.find_tensor(slot.name) == nullptr) return;
    if (slot.kind == SlotKind::kVector) {
      to.set(slot.part, vector(slot.name, factor));
    } else if (slot.kind == SlotKind::kExperts) {
      experts(slot, to);
    } else {
      // A router's near ties must not be decided by rounding.
      const bool exact = is_router(slot.part);
      const bool last = slot.end_row() == slot.shape[1];
      to.set(slot.part, matrix(slot.name, n_rows, slot.first_row, last, exact));
    }
  }

  // Values of a tensor as floats.
  FloatWeights vector(const std::string& name, float factor) {
    const TensorInfo* tensor = file_.find_tensor(name);
    check(*tensor);
    std::vector<float> values(tensor->n_elements);
    codec(tensor->dtype)
        .dequantize(file_.tensor_data(*tensor).data(), values.data(),
                    static_cast<std::int64_t>(values.size()));
    if (factor != 1) {
      for (float& value : values) value *= factor;
    }
    for (const float value : values) {
      if (std::isfinite(value)) continue;
      warnings_.push_back("non_finite: tensor '" + printable(name) + "' holds NaN or infinity");
      break;
    }
    const std::size_t n_bytes = values.size() * sizeof(float);
    count(n_bytes);
    finish(*tensor);
    FloatWeights out;
    if (device_ != nullptr) {
      out.device = device_->allocate(n_bytes, "weights");
      device_->upload(out.device.data(), values.data(), n_bytes);
    } else {
      out.host = std::move(values);
    }
    return out;
  }

  void count(std::size_t n_bytes) {
    (device_ != nullptr ? memory_.device_bytes : memory_.weights_bytes) += n_bytes;
  }

  void check(const TensorInfo& tensor) const {
    if (options_.check_tensors) check_tensor_values(file_, tensor);
  }

  // The bytes of `tensor` are not needed any more.
  void finish(const TensorInfo& tensor) {
    file_.release(tensor, 0, tensor.n_bytes);
    done(tensor);
  }

  void done(const TensorInfo& tensor) {
    file_.check_whole();
    progress_.n_bytes_done += tensor.n_bytes;
    report();
  }

  void report() const {
    if (options_.on_progress && !options_.on_progress(progress_)) {
      throw Error(ErrorCode::kCancelled, file_.path() + ": loading was cancelled");
    }
  }

 private:
  const GgufFile& file_;
  Backend& host_;
  Backend* backend_;                 // where matrices go
  DeviceBackend* device_ = nullptr;  // backend_, when it is one
  const LoadOptions& options_;
  ModelMemory& memory_;
  std::vector<std::string>& warnings_;
  std::vector<std::vector<std::byte>>& requantized_;
  const PackedFile* packed_;  // null: there is none
  std::vector<PackedPart> parts_;
  LoadProgress progress_;
  std::size_t expert_bytes_ = 0;  // in memory
};

}  // namespace specdec
