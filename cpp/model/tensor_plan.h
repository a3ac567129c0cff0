// The tensors a file of one architecture holds, checked against its directory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gguf/reader.h"
#include "model/arch/arch.h"

namespace specdec {

struct PlannedTensor {
  std::string name;
  std::vector<std::uint64_t> shape;  // innermost first
  bool required = true;
};

[[nodiscard]] std::string block_name(int layer, const char* part);  // "blk.3.attn_q.weight"

// Shape of the embedding, read from the file: [hidden_size, vocab_size].
[[nodiscard]] int read_vocab_size(const GgufFile& file, int hidden_size);

// Throws missing_tensor, shape_mismatch, unexpected_tensor.
void check_tensor_plan(const GgufFile& file, const ArchSpec& spec, const ModelConfig& config);

}  // namespace specdec
