#include "model/device_sizes.h"

#include <algorithm>

#include "backend/device_slab.h"
#include "model/batch.h"
#include "quant/requantize.h"

namespace specdec {

std::uint64_t DeviceSizes::weights(int n_device_layers, bool with_embedding) const {
  if (n_device_layers == 0) return 0;
  std::uint64_t n_bytes = head_bytes + (with_embedding ? embedding_bytes : 0);
  for (std::size_t i = layer_bytes.size() - static_cast<std::size_t>(n_device_layers);
       i < layer_bytes.size(); ++i)
    n_bytes += layer_bytes[i];
  return n_bytes;
}

DeviceSizes device_sizes(const GgufFile& file, const ModelConfig& config,
                         std::optional<DType> requantize, const DeviceBackend* device) {
  DeviceSizes out;
  out.layer_bytes.resize(static_cast<std::size_t>(config.n_layers));
  out.work = {.max_rows = kMaxBatchRows,
              .hidden_size = config.hidden_size,
              .qkv_size = config.qkv_size(),
              .q_size = config.q_size(),
              .ffn_size = config.intermediate_size,
              .max_n_in = 0,
              .n_tokens = config.n_tokens,
              .n_heads = config.n_heads,
              .n_kv_heads = config.n_kv_heads,
              .head_dim = config.head_dim,
              .n_rot = config.rope_width(),
              .n_ctx = 0,
              .n_experts = config.n_experts,
              .n_experts_used = config.n_experts > 0 ? config.n_experts_used : 0,
              .expert_size = config.n_experts > 0 ? config.expert_size : 0};
  const auto matrix_bytes = [&](DType dtype, std::int64_t n_out, std::int64_t n_in) {
    return device != nullptr ? std::uint64_t{device->matrix_bytes(dtype, n_out, n_in)}
                             : row_bytes(dtype, static_cast<std::uint64_t>(n_in)) *
                                   static_cast<std::uint64_t>(n_out);
  };
  for (const Slot& slot : config.slots) {
    const TensorInfo* tensor = file.find_tensor(slot.name);
    if (tensor == nullptr || is_configuration(slot.part)) continue;
    const auto n_in = static_cast<std::int64_t>(slot.shape[0]);
    if (slot.part == Part::kEmbedding) {
      if (!embedding_is_head(*tensor, config, requantize)) {
        out.embedding_bytes =
            DeviceSlab::aligned(matrix_bytes(tensor->dtype, config.n_tokens, n_in));
      }
      if (!config.tied_head) continue;
    }
    std::uint64_t n_bytes = tensor->n_elements * sizeof(float);
    if (slot.kind == SlotKind::kExperts) {
      DType dtype = tensor->dtype;
      if (requantize && requantize_pays(dtype, n_in, *requantize)) dtype = *requantize;
      n_bytes = slot.share_of(tensor->n_elements / slot.shape[0] * row_bytes(dtype, slot.shape[0]));
      if (device != nullptr) {
        n_bytes =
            device->stack_bytes(dtype, static_cast<std::int64_t>(slot.end_row() - slot.first_row),
                                n_in, static_cast<int>(slot.shape[2]));
      }
      out.work.max_n_in = std::max(out.work.max_n_in, n_in);
    } else if (slot.kind == SlotKind::kMatrix) {
      // Of the embedding and the head only tokens that exist.
      const std::int64_t n_out = slot.layer < 0
                                     ? config.n_tokens
                                     : static_cast<std::int64_t>(slot.end_row() - slot.first_row);
      DType dtype = tensor->dtype;
      if (requantize && requantize_pays(dtype, n_in, *requantize)) dtype = *requantize;
      n_bytes = matrix_bytes(dtype, n_out, n_in);
      out.work.max_n_in = std::max(out.work.max_n_in, n_in);
    }
    n_bytes = DeviceSlab::aligned(n_bytes);
    (slot.layer < 0 ? out.head_bytes : out.layer_bytes[static_cast<std::size_t>(slot.layer)]) +=
        n_bytes;
  }
  return out;
}

double read_expert_share(const GgufFile& file, const ModelConfig& config) {
  if (config.n_experts == 0) return 0;
  double experts = 0;
  double others = 0;
  for (const Slot& slot : config.slots) {
    const TensorInfo* tensor = file.find_tensor(slot.name);
    if (tensor == nullptr || (slot.part == Part::kEmbedding && !config.tied_head)) continue;
    (slot.is_chosen() ? experts : others) += static_cast<double>(slot.share_of(tensor->n_bytes));
  }
  experts *= static_cast<double>(config.n_experts_used) / config.n_experts;
  return experts / (experts + others);
}

bool embedding_is_head(const TensorInfo& embedding, const ModelConfig& config,
                       std::optional<DType> requantize) {
  return config.tied_head &&
         !(requantize &&
           requantize_pays(embedding.dtype, static_cast<std::int64_t>(embedding.shape[0]),
                           *requantize));
}

std::size_t device_cache_bytes(const KvLayout& layout, int n_ctx) {
  const auto n_pages = static_cast<std::size_t>((n_ctx + kKvChunk - 1) / kKvChunk + 1);
  return n_pages * layout.layer_bytes();
}

}  // namespace specdec
