// What is alike in architectures with experts.
#include "model/arch/arch.h"

namespace specdec {

void read_shared_expert(const HparamReader& hparams, ModelConfig& config, int usual) {
  if (config.n_experts == 0) return;
  const auto size =
      static_cast<int>(hparams.get_int("expert_shared_feed_forward_length", 0, 0, kMaxExpertSize));
  config.shared_expert_size = size == 0 ? usual : size;
}

}  // namespace specdec
