// The weights of a model as the forward pass uses them.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/device_backend.h"
#include "gguf/reader.h"
#include "model/model.h"
#include "model/packed_file.h"

namespace specdec {

// Numbers in the memory of the backend that uses them.
struct FloatWeights {
  std::vector<float> host;
  DeviceMemory device;

  [[nodiscard]] const float* data_or_null() const {
    if (device.size() > 0) return device.as<const float>();
    return host.empty() ? nullptr : host.data();
  }
};

// The tensors of the model, or of a layer, by their part; those that the file does not hold are
// null.
class PartWeights {
 public:
  [[nodiscard]] const WeightMatrix* matrix(Part part) const { return matrices_[index(part)].get(); }
  [[nodiscard]] const float* vector(Part part) const {
    return vectors_[index(part)].data_or_null();
  }
  // Empty where there are none.
  [[nodiscard]] ExpertMatrices experts(Part part) const { return experts_[index(part)]; }
  [[nodiscard]] bool has(Part part) const {
    return matrix(part) != nullptr || vector(part) != nullptr;
  }
  void set(Part part, std::unique_ptr<WeightMatrix> matrix) {
    matrices_[index(part)] = std::move(matrix);
  }
  void add_expert(Part part, std::unique_ptr<WeightMatrix> matrix) {
    experts_[index(part)].push_back(std::move(matrix));
  }
  void set(Part part, FloatWeights vector) { vectors_[index(part)] = std::move(vector); }

 private:
  static std::size_t index(Part part) { return static_cast<std::size_t>(part); }

  std::array<std::unique_ptr<WeightMatrix>, kNumParts> matrices_;
  std::array<FloatWeights, kNumParts> vectors_;
  std::array<std::vector<std::unique_ptr<WeightMatrix>>, kNumParts> experts_;
};

struct ModelWeights {
  const TensorInfo* embedding = nullptr;  // rows stay in the mapped file
  std::span<const std::byte> embedding_data;
  // The same on the device: the head, or a matrix of its own. Null: it is not there.
  const WeightMatrix* device_embedding = nullptr;
  std::unique_ptr<WeightMatrix> own_device_embedding;
  std::vector<PartWeights> layers;
  PartWeights model;  // kHead is [n_tokens, hidden_size], the embedding's if tied: no padded rows
  std::shared_ptr<const PackedFile> packed;         // what matrices may be over
  std::vector<std::vector<std::byte>> requantized;  // what matrices that are views point to
  ModelMemory memory;
};

}  // namespace specdec
