// The weights of a model as the forward pass uses them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/device_backend.h"
#include "gguf/reader.h"
#include "model/model.h"

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

// A matrix and its bias, which may be absent. An absent part has no weight.
struct LinearWeights {
  std::unique_ptr<WeightMatrix> weight;
  FloatWeights bias;
};

struct NormWeights {
  FloatWeights weight;
  FloatWeights bias;
};

struct LayerWeights {
  NormWeights attention_norm, ffn_norm;
  std::vector<LinearWeights> qkv;  // one [Q; K; V] matrix, or q, k, v
  LinearWeights attention_out;
  LinearWeights gate, up, down;  // gate only in gated networks
};

struct Model::Weights {
  const TensorInfo* embedding = nullptr;  // rows stay in the mapped file
  std::span<const std::byte> embedding_data;
  // The same on the device: the head, or a matrix of its own. Null: it is not there.
  const WeightMatrix* device_embedding = nullptr;
  std::unique_ptr<WeightMatrix> own_device_embedding;
  std::vector<LayerWeights> layers;
  NormWeights output_norm;
  LinearWeights head;  // [n_tokens, hidden_size]: padded rows are left out
  std::vector<std::vector<std::byte>> requantized;  // what matrices that are views point to
  ModelMemory memory;
};

}  // namespace specdec
