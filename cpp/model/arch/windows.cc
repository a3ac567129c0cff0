#include "model/arch/arch.h"

namespace specdec {

void read_windows(const HparamReader& hparams, ModelConfig& config, int period, int usual) {
  const char* pattern = "attention.sliding_window_pattern";
  const auto window =
      static_cast<int>(hparams.get_int("attention.sliding_window", usual, 0, kMaxContextLength));
  if (window == 0) return;
  std::vector<bool> windowed = hparams.get_layer_flags(pattern);
  if (windowed.empty()) {
    // 0: all layers, 1: none.
    const std::int64_t every = hparams.get_int(pattern, period, 0, kMaxContextLength);
    for (std::int64_t layer = 0; layer < config.n_layers; ++layer)
      windowed.push_back(every == 0 || layer % every < every - 1);
  }
  for (std::size_t layer = 0; layer < windowed.size(); ++layer)
    config.layers[layer].window = windowed[layer] ? window : 0;
}

void read_short_windows(const HparamReader& hparams, ModelConfig& config) {
  const std::int64_t window = hparams.get_int("attention.sliding_window", 0, 0, kMaxContextLength);
  if (window < config.context_length) read_windows(hparams, config, 0);
}

}  // namespace specdec
