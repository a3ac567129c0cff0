#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>

#include "model/arch/arch.h"
#include "model/hparams.h"
#include "quant/codec.h"

namespace specdec {

namespace {

constexpr double kMaxFloat = std::numeric_limits<float>::max();
constexpr double kSmallest = 1e-6;

// What cos and sin are multiplied with for `scale` times the original context (Peng et al. 2023).
double yarn_magnitude(double factor, double scale) {
  return 1.0 + 0.1 * scale * std::log(std::max(factor, 1.0));
}

void read_yarn(const HparamReader& hparams, const ArchSpec& spec, RopeConfig& rope) {
  rope.scaling = RopeScaling::kYarn;
  rope.beta_fast = hparams.get_float("rope.scaling.yarn_beta_fast", 32, kSmallest, 1e6);
  rope.beta_slow = hparams.get_float("rope.scaling.yarn_beta_slow", 1, kSmallest, 1e6);
  rope.truncate = hparams.get_bool("rope.scaling.yarn_truncate", spec.yarn_truncates);
  if (hparams.get_float("rope.scaling.yarn_ext_factor", 1, -kMaxFloat, kMaxFloat) != 1)
    hparams.unsupported("rope.scaling.yarn_ext_factor", "this value");
  // Of config.json's attention_factor, and of mscale_all_dim where mscale is 1.
  const double all_dims = hparams.get_float("rope.scaling.yarn_log_multiplier", 0, 0, 1e3);
  if (all_dims != 0)
    rope.magnitude = yarn_magnitude(rope.factor, 1) / yarn_magnitude(rope.factor, all_dims);
  const double given = hparams.get_float("rope.scaling.yarn_attn_factor", 1, kSmallest, 1e6);
  if (given != 1) rope.magnitude = given;
}

void read_scaling(const HparamReader& hparams, const ArchSpec& spec, int context,
                  RopeConfig& rope) {
  const double old_factor = hparams.get_float("rope.scale_linear", 0, 0, 1e6);
  rope.factor = hparams.get_float("rope.scaling.factor", old_factor, 0, 1e6);
  if (rope.factor == 0) rope.factor = 1;
  if (rope.factor < kSmallest)
    hparams.fail("rope.scaling.factor", "at least 1e-06", std::to_string(rope.factor));
  // Of cos and sin, whatever the type, "none" included.
  rope.attn_factor = hparams.get_float("rope.scaling.attn_factor", 1, kSmallest, 1e6);
  rope.original_context = static_cast<int>(
      hparams.get_int("rope.scaling.original_context_length", context, 1, kMaxContextLength));
  const std::string_view type = hparams.get_string("rope.scaling.type", "linear");
  if (type == "none" || type == "longrope") {  // the latter has tensors in place of a factor
    rope.factor = 1;
  } else if (type == "linear") {
    if (rope.factor != 1) rope.scaling = RopeScaling::kLinear;
  } else if (type == "yarn") {
    read_yarn(hparams, spec, rope);
  } else if (type == "dynamic") {
    hparams.unsupported("rope.scaling.type",
                        "dynamic, which rotates by the length so far and so differs between a "
                        "prompt and the same tokens fed one by one,");
  } else {
    hparams.unsupported("rope.scaling.type", printable(type));
  }
}

// [n_rot/2] positive numbers, or empty.
std::vector<float> read_divisors(const GgufFile& file, const char* name) {
  const TensorInfo* tensor = file.find_tensor(name);
  if (tensor == nullptr) return {};
  std::vector<float> divisors(tensor->n_elements);
  codec(tensor->dtype)
      .dequantize(file.tensor_data(*tensor).data(), divisors.data(),
                  static_cast<std::int64_t>(tensor->n_elements));
  for (const float divisor : divisors) {
    if (std::isfinite(divisor) && divisor > 0) continue;
    throw file.make_error(ErrorCode::kModelFormat, "bad_hparam",
                          std::string("tensor '") + name +
                              "' should hold positive finite numbers, found " +
                              std::to_string(divisor),
                          {}, tensor->name, tensor->offset);
  }
  return divisors;
}

}  // namespace

void read_rope(const HparamReader& hparams, const ArchSpec& spec, int head_dim, int context,
               RopeConfig& rope) {
  rope.interleaved = spec.rope_interleaved;
  rope.n_rot = static_cast<int>(hparams.get_int("rope.dimension_count", head_dim, 1, head_dim));
  if (rope.n_rot % 2 != 0)
    hparams.fail("rope.dimension_count", "an even number", std::to_string(rope.n_rot));
  if (!spec.partial_rope && rope.n_rot != head_dim) {
    hparams.unsupported("rope.dimension_count", std::to_string(rope.n_rot) + " of the " +
                                                    std::to_string(head_dim) +
                                                    " dimensions of a head");
  }
  rope.theta = hparams.get_float("rope.freq_base", 10000.0, 1.001, 1e30);
  read_scaling(hparams, spec, context, rope);
  // The tensors make it longrope, whatever the type says.
  const bool has_tensors = hparams.file().find_tensor("rope_factors_long.weight") != nullptr;
  if (spec.long_rope && has_tensors) {
    rope.scaling = RopeScaling::kLongRope;
  } else if (hparams.get_string("rope.scaling.type", "") == "longrope") {
    hparams.unsupported("rope.scaling.type", spec.long_rope
                                                 ? "longrope without rope_factors_long.weight"
                                                 : "longrope in this architecture");
  }
}

void read_rope_divisors(const GgufFile& file, RopeConfig& rope) {
  if (rope.scaling == RopeScaling::kLongRope) {
    rope.divisors = read_divisors(file, "rope_factors_short.weight");
    rope.long_divisors = read_divisors(file, "rope_factors_long.weight");
  } else {
    rope.divisors = read_divisors(file, "rope_freqs.weight");
  }
}

RopeFrequencies rope_frequencies(const RopeConfig& rope, bool long_context) {
  RopeFrequencies out;
  const int n_pairs = rope.n_rot / 2;
  out.angles.resize(static_cast<std::size_t>(n_pairs));
  const std::vector<float>& divisors =
      long_context && !rope.long_divisors.empty() ? rope.long_divisors : rope.divisors;
  // YaRN: pairs that turn more than beta_fast times in the original context keep their frequency,
  // those that turn less than beta_slow times are interpolated, the others lie between.
  double low = 0;
  double high = 0;
  if (rope.scaling == RopeScaling::kYarn) {
    const auto pair_of_turns = [&](double turns) {
      return rope.n_rot * std::log(rope.original_context / (turns * 2.0 * std::numbers::pi)) /
             (2.0 * std::log(rope.theta));
    };
    low = pair_of_turns(rope.beta_fast);
    high = pair_of_turns(rope.beta_slow);
    low = std::max(rope.truncate ? std::floor(low) : low, 0.0);
    high = std::min(rope.truncate ? std::ceil(high) : high, rope.n_rot - 1.0);
    out.magnitude = rope.magnitude != 0 ? rope.magnitude : yarn_magnitude(rope.factor, 1);
  }
  out.magnitude *= rope.attn_factor;
  for (int i = 0; i < n_pairs; ++i) {
    const auto at = static_cast<std::size_t>(i);
    double angle = std::pow(rope.theta, -2.0 * i / rope.n_rot);
    if (!divisors.empty()) angle /= static_cast<double>(divisors[at]);
    if (rope.scaling == RopeScaling::kLinear) angle /= rope.factor;
    if (rope.scaling == RopeScaling::kYarn) {
      const double keep = 1.0 - std::clamp((i - low) / std::max(0.001, high - low), 0.0, 1.0);
      angle *= keep + (1.0 - keep) / rope.factor;
    }
    out.angles[at] = angle;
  }
  return out;
}

}  // namespace specdec
