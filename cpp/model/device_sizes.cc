#include "model/device_sizes.h"

#include <charconv>

#include "backend/device_slab.h"
#include "model/model.h"
#include "quant/requantize.h"

namespace specdec {
namespace {

// "blk.12.attn_q.weight" -> 12; -1 for what belongs to no layer.
int layer_of(const std::string& name) {
  if (!name.starts_with("blk.")) return -1;
  int layer = -1;
  const auto [next, error] = std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  return error == std::errc() ? layer : -1;
}

}  // namespace

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
              .qkv_size = config.q_size() + 2 * config.kv_size(),
              .q_size = config.q_size(),
              .ffn_size = config.intermediate_size,
              .max_n_in = 0,
              .n_tokens = config.n_tokens,
              .n_heads = config.n_heads,
              .n_kv_heads = config.n_kv_heads,
              .head_dim = config.head_dim,
              .n_rot = config.rope.n_rot,
              .n_ctx = 0};
  const auto matrix_bytes = [&](DType dtype, std::int64_t n_out, std::int64_t n_in) {
    return device != nullptr ? std::uint64_t{device->matrix_bytes(dtype, n_out, n_in)}
                             : row_bytes(dtype, static_cast<std::uint64_t>(n_in)) *
                                   static_cast<std::uint64_t>(n_out);
  };
  for (const TensorInfo& tensor : file.tensors()) {
    const bool is_embedding = tensor.name == "token_embd.weight";
    if (is_embedding) {
      const auto n_in = static_cast<std::int64_t>(tensor.shape[0]);
      if (!embedding_is_head(tensor, config, requantize)) {
        out.embedding_bytes =
            DeviceSlab::aligned(matrix_bytes(tensor.dtype, config.n_tokens, n_in));
      }
      if (!config.tied_head) continue;
    }
    std::uint64_t n_bytes = tensor.n_elements * sizeof(float);
    if (tensor.shape.size() == 2) {
      const auto n_in = static_cast<std::int64_t>(tensor.shape[0]);
      auto n_out = static_cast<std::int64_t>(tensor.shape[1]);
      if (is_embedding || tensor.name == "output.weight") n_out = config.n_tokens;
      DType dtype = tensor.dtype;
      if (requantize && requantize_pays(dtype, n_in, *requantize)) dtype = *requantize;
      n_bytes = matrix_bytes(dtype, n_out, n_in);
      out.work.max_n_in = std::max(out.work.max_n_in, n_in);
    }
    n_bytes = DeviceSlab::aligned(n_bytes);
    const int layer = layer_of(tensor.name);
    // The tensor plan was checked: a layer's number is in range.
    if (layer >= 0 && layer < config.n_layers) {
      out.layer_bytes[static_cast<std::size_t>(layer)] += n_bytes;
    } else if (tensor.name != "rope_freqs.weight") {
      out.head_bytes += n_bytes;
    }
  }
  return out;
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
