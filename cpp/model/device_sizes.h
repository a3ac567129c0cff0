// What a model takes on a device, from its tensor directory: no weights are read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "backend/device_backend.h"
#include "gguf/reader.h"
#include "model/config.h"

namespace specdec {

struct DeviceSizes {
  std::vector<std::uint64_t> layer_bytes;  // [n_layers]
  std::uint64_t head_bytes = 0;            // with the output norm
  std::uint64_t embedding_bytes = 0;       // 0: it is the head
  WorkShape work;                          // without n_ctx

  // Of the last n layers and, unless n is 0, the head; the embedding goes with all layers only.
  [[nodiscard]] std::uint64_t weights(int n_device_layers, bool with_embedding) const;
};

// `device` null: an estimate, for devices that are not there.
[[nodiscard]] DeviceSizes device_sizes(const GgufFile& file, const ModelConfig& config,
                                       std::optional<DType> requantize,
                                       const DeviceBackend* device);

// Whether one matrix is both.
[[nodiscard]] bool embedding_is_head(const TensorInfo& embedding, const ModelConfig& config,
                                     std::optional<DType> requantize);

// One layer's cache of n_ctx positions, whole pages, and one page more for a fork or a tree.
[[nodiscard]] std::size_t device_cache_bytes(const KvLayout& layout, int n_ctx);

}  // namespace specdec
