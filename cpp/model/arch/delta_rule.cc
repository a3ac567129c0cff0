// What Qwen3.5 and Qwen3-Next have in common: three layers of a gated delta rule, then one of gated
// attention, and so on.
#include <numeric>

#include "base/error.h"
#include "model/arch/arch.h"

namespace specdec {

namespace {

int read_size(const HparamReader& hparams, const char* suffix, std::int64_t largest) {
  return static_cast<int>(hparams.require_int(suffix, 1, largest));
}

RecurrentShape read_shape(const HparamReader& hparams) {
  constexpr std::int64_t kMaxHeads = 1024;
  constexpr std::int64_t kMaxDim = 1024;
  RecurrentShape shape;
  shape.n_taps = read_size(hparams, "ssm.conv_kernel", 8);
  shape.key_dim = shape.value_dim = read_size(hparams, "ssm.state_size", kMaxDim);
  shape.n_key_heads = read_size(hparams, "ssm.group_count", kMaxHeads);
  shape.n_heads = read_size(hparams, "ssm.time_step_rank", kMaxHeads);
  if (shape.value_dim % 16 != 0)
    hparams.unsupported("ssm.state_size", "a size that is not a multiple of 16");
  if (shape.n_heads % shape.n_key_heads != 0) {
    hparams.fail("ssm.time_step_rank",
                 "a multiple of ssm.group_count " + std::to_string(shape.n_key_heads),
                 std::to_string(shape.n_heads));
  }
  const std::int64_t inner = hparams.require_int("ssm.inner_size", 1, kMaxHeads * kMaxDim);
  if (inner != shape.value_size()) {
    hparams.fail("ssm.inner_size",
                 "ssm.state_size times ssm.time_step_rank, " + std::to_string(shape.value_size()),
                 std::to_string(inner));
  }
  return shape;
}

void check_sections(const HparamReader& hparams, const ModelConfig& config) {
  const char* suffix = "rope.dimension_sections";
  if (!hparams.has(suffix)) return;
  const std::vector<std::int32_t> sections = hparams.file().get_i32_array(hparams.key(suffix));
  const std::int64_t n = std::accumulate(sections.begin(), sections.end(), std::int64_t{0});
  // Text has one position for all sections; pairs of none would have position 0.
  if (n < config.n_rot() / 2)
    hparams.unsupported(suffix, "less than all pairs of rope.dimension_count");
}

}  // namespace

void read_delta_layers(const HparamReader& hparams, ModelConfig& config, bool grouped) {
  config.recurrent = read_shape(hparams);
  config.recurrent.grouped = grouped;
  check_sections(hparams, config);
  std::vector<bool> recurrent = hparams.get_layer_flags("attention.recurrent_layers");
  if (recurrent.empty()) {
    const std::int64_t interval =
        hparams.get_int("full_attention_interval", 4, 1, kMaxContextLength);
    for (std::int64_t layer = 0; layer < config.n_layers; ++layer)
      recurrent.push_back((layer + 1) % interval != 0);
  }
  bool any_attention = false;
  for (std::size_t layer = 0; layer < config.layers.size(); ++layer) {
    config.layers[layer].recurrent = recurrent[layer];
    config.layers[layer].gates_attention = !recurrent[layer];
    any_attention |= !recurrent[layer];
  }
  if (!any_attention)
    hparams.unsupported("full_attention_interval", "a model without a layer of attention");
  if (config.n_recurrent_layers() == 0) config.recurrent = {};
}

void read_next_delta_layers(const HparamReader& hparams, ModelConfig& config) {
  check_sections(hparams, config);
  for (LayerSpec& layer : config.layers) layer.gates_attention = true;
}

void delta_layer_slots(SlotTable& t) {
  const ModelConfig& c = t.config();
  t.norm(Part::kAttentionNorm, "attn_norm");
  if (c.layers[static_cast<std::size_t>(t.layer())].recurrent) {
    const RecurrentShape& s = c.recurrent;
    t.linear(Part::kQkv, "attn_qkv", c.hidden_size, s.n_channels());
    t.linear(Part::kRecurrentGate, "attn_gate", c.hidden_size, s.value_size());
    if (s.grouped) {
      t.linear(Part::kRecurrentGates, "ssm_ba", c.hidden_size, 2 * std::int64_t{s.n_heads});
    } else {
      t.linear(Part::kRecurrentAlpha, "ssm_alpha", c.hidden_size, s.n_heads);
      t.linear(Part::kRecurrentBeta, "ssm_beta", c.hidden_size, s.n_heads);
    }
    t.table(Part::kRecurrentConv, "ssm_conv1d.weight", s.n_taps, s.n_channels());
    t.vector(Part::kRecurrentStepBias, "ssm_dt.bias", s.n_heads);
    t.vector(Part::kRecurrentDecay, "ssm_a", s.n_heads);
    t.vector(Part::kRecurrentNorm, "ssm_norm.weight", s.value_dim);
    t.linear(Part::kAttentionOut, "ssm_out", s.value_size(), c.hidden_size);
  } else {
    t.qkv(Presence::kNever);
    t.vector(Part::kQNorm, "attn_q_norm.weight", c.head_dim);
    t.vector(Part::kKNorm, "attn_k_norm.weight", c.head_dim);
    t.linear(Part::kAttentionOut, "attn_output", c.q_size(), c.hidden_size);
  }
  t.norm(Part::kFfnNorm, "post_attention_norm");
  if (c.n_experts == 0) return t.gated_ffn();
  t.experts();
  t.shared_expert(Presence::kRequired);
}

}  // namespace specdec
