// What the rows of a pass begin with: embedded tokens, and the rotations of their positions.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "model/pass.h"
#include "model/runner.h"
#include "quant/codec.h"

namespace specdec {

void Runner::embed(const Batch& batch, float* out, std::int64_t stride) const {
  const ModelConfig& config = model_.config();
  const std::size_t n = static_cast<std::size_t>(config.hidden_size);
  const ModelWeights& weights =
      model_.weights().embedding != nullptr ? model_.weights() : lender_->weights();
  const DType dtype = weights.embedding->dtype;
  const std::size_t n_row_bytes = static_cast<std::size_t>(row_bytes(dtype, n));
  for (std::size_t r = 0; r < batch.tokens.size(); ++r) {
    float* row = out + static_cast<std::int64_t>(r) * stride;
    const auto token = static_cast<std::size_t>(batch.tokens[r]);
    codec(dtype).dequantize(weights.embedding_data.data() + token * n_row_bytes, row,
                            static_cast<std::int64_t>(n));
    if (config.embedding_scale == 1) continue;
    for (std::size_t i = 0; i < n; ++i) row[i] *= config.embedding_scale;
  }
}

void Runner::copy_hidden(const Batch& batch, float* out, std::int64_t stride) const {
  const std::size_t n = static_cast<std::size_t>(model_.config().hidden_size);
  for (std::size_t r = 0; r < batch.tokens.size(); ++r) {
    std::memcpy(out + static_cast<std::int64_t>(r) * stride, batch.hidden.data() + r * n,
                n * sizeof(float));
  }
}

// cos and sin of the positions up to `last`, of all ropes.
const float* Runner::rope_table(bool long_context, int last) {
  const std::vector<RopeFrequencies>& ropes = model_.ropes(long_context);
  const auto n_rot = static_cast<std::size_t>(model_.config().n_rot());
  const std::size_t width = n_rot * ropes.size();
  std::vector<float>& table = work_.rope_tables[long_context ? 1 : 0];
  for (std::size_t p = table.size() / width; p <= static_cast<std::size_t>(last); ++p) {
    table.resize((p + 1) * width);
    for (std::size_t k = 0; k < ropes.size(); ++k) {
      float* at = table.data() + p * width + k * n_rot;
      for (std::size_t i = 0; i < n_rot / 2; ++i) {
        const double angle = static_cast<double>(p) * ropes[k].angles[i];
        at[i] = static_cast<float>(std::cos(angle) * ropes[k].magnitude);
        at[n_rot / 2 + i] = static_cast<float>(std::sin(angle) * ropes[k].magnitude);
      }
    }
  }
  return table.data();
}

// Positions follow from depth; cos and sin come from a table that lists each position once.
void Runner::place(const Pass& pass) {
  const auto n_rows = static_cast<std::size_t>(pass.n_fed());
  const std::size_t n_rot = static_cast<std::size_t>(model_.config().n_rot());
  const std::size_t n_ropes = model_.config().ropes.size();
  work_.positions.resize(n_rows);
  for (const PassPart& part : pass.parts) {
    const auto first = static_cast<std::size_t>(part.first_row);
    // Those that steps add are a chain.
    const std::size_t end =
        pass.cache != nullptr ? n_rows : first + static_cast<std::size_t>(part.n_rows);
    for (std::size_t r = first; r < end; ++r) {
      const auto row = static_cast<std::int32_t>(r - first);
      const std::int32_t parent = part.parents != nullptr ? part.parents[row] : row - 1;
      work_.positions[r] = parent < 0
                               ? part.first_slot
                               : work_.positions[first + static_cast<std::size_t>(parent)] + 1;
    }
  }
  bool long_context = false;
  auto part = pass.parts.begin();
  for (std::size_t r = 0; r < n_rows; ++r) {
    if (part != pass.parts.end() && static_cast<int>(r) == part->first_row)
      long_context = model_.is_long((part++)->cache->n_ctx());
    const int position = work_.positions[r];
    const float* row =
        rope_table(long_context, position) + static_cast<std::size_t>(position) * n_rot * n_ropes;
    for (std::size_t k = 0; k < n_ropes; ++k) {
      std::memcpy(work_.cos_sin.as<float>() + (k * n_rows + r) * n_rot, row + k * n_rot,
                  n_rot * sizeof(float));
    }
  }
}

}  // namespace specdec
