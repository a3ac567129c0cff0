#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "gguf/vocab_rows.h"
#include "model/arch/arch.h"
#include "model/hparams.h"
#include "model/slots.h"

namespace specdec {

namespace {

// Far above any real model; they keep every product below within 64 bits and loops short.
constexpr std::int64_t kMaxLayers = 4096;
constexpr std::int64_t kMaxWidth = std::int64_t{1} << 20;
constexpr std::int64_t kMaxHeads = std::int64_t{1} << 14;
constexpr std::int64_t kMaxHeadDim = 1024;
constexpr int kMaxExpertsUsed = 64;
constexpr std::int64_t kMaxContext = kMaxContextLength;
constexpr double kMaxFloat = std::numeric_limits<float>::max();

// Keys of model variants whose arithmetic differs. The value must be 0, false or absent, unless the
// architecture reads it.
void refuse_variants(const HparamReader& hparams, const ArchSpec& spec) {
  for (const char* suffix :
       {"expert_shared_count", "expert_shared_feed_forward_length", "leading_dense_block_count",
        "expert_group_count", "attention.q_lora_rank", "attention.kv_lora_rank",
        "nextn_predict_layers", "pooling_type"}) {
    if (!spec.reads(suffix) && hparams.has(suffix) &&
        hparams.get_int(suffix, 0, 0, std::numeric_limits<std::int64_t>::max()) != 0) {
      hparams.unsupported(suffix, "this kind of model");
    }
  }
  for (const char* suffix : {"expert_count", "expert_used_count"}) {
    if (!spec.experts && hparams.get_int(suffix, 0, 0, kMaxContext) != 0)
      hparams.unsupported(suffix, "this kind of model");
  }
  for (const char* suffix :
       {"attn_logit_softcapping", "final_logit_softcapping", "attention.clamp_kqv",
        "attention.max_alibi_bias", "attention.temperature_scale"}) {
    if (!spec.reads(suffix) && hparams.get_float(suffix, 0, -kMaxFloat, kMaxFloat) != 0)
      hparams.unsupported(suffix, "this value");
  }
  for (const char* suffix : {"logit_scale", "residual_scale", "embedding_scale"}) {
    const double scale = hparams.get_float(suffix, 0, -kMaxFloat, kMaxFloat);
    if (!spec.reads(suffix) && scale != 0 && scale != 1) hparams.unsupported(suffix, "this value");
  }
  if (!hparams.get_bool("attention.causal", true))
    hparams.unsupported("attention.causal", "attention to later tokens");
  const std::string_view kind = hparams.file().get_string("general.type", "model");
  if (kind != "model") {
    throw hparams.file().make_error(
        ErrorCode::kUnsupported, "general_type",
        "general.type is '" + printable(kind) + "', only 'model' can be run", "general.type");
  }
}

void read_heads(const HparamReader& hparams, const ArchSpec& spec, ModelConfig& c) {
  c.n_heads = static_cast<int>(hparams.require_int("attention.head_count", 1, kMaxHeads));
  c.n_kv_heads =
      static_cast<int>(hparams.get_int("attention.head_count_kv", c.n_heads, 1, c.n_heads));
  if (c.n_heads % c.n_kv_heads != 0) {
    hparams.fail("attention.head_count_kv", "a divisor of head_count " + std::to_string(c.n_heads),
                 std::to_string(c.n_kv_heads));
  }
  if (hparams.has("attention.key_length")) {
    c.head_dim = static_cast<int>(hparams.require_int("attention.key_length", 1, kMaxHeadDim));
  } else {
    c.head_dim = c.hidden_size / c.n_heads;
    if (c.hidden_size % c.n_heads != 0 || c.head_dim > kMaxHeadDim) {
      hparams.fail("attention.head_count",
                   "a divisor of embedding_length " + std::to_string(c.hidden_size) +
                       " giving heads of at most " + std::to_string(kMaxHeadDim),
                   std::to_string(c.n_heads));
    }
  }
  const std::int64_t value_length =
      hparams.get_int("attention.value_length", c.head_dim, 1, kMaxHeadDim);
  if (value_length != c.head_dim)
    hparams.unsupported("attention.value_length", "a size other than key_length");
  if (static_cast<std::int64_t>(c.n_heads) * c.head_dim > kMaxWidth) {
    hparams.fail("attention.head_count",
                 "at most " + std::to_string(kMaxWidth / c.head_dim) + " heads of " +
                     std::to_string(c.head_dim),
                 std::to_string(c.n_heads));
  }
  c.attention_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim)));
  // No other scale belongs to most architectures; llama.cpp does not read the key there, so a file
  // that has another one gives other logits there than its author meant.
  const double scale = hparams.get_float("attention.scale", 0, 0, 1e6);
  if (spec.reads("attention.scale")) {
    if (scale != 0) c.attention_scale = static_cast<float>(scale);
    return;
  }
  if (scale != 0 && std::abs(scale / static_cast<double>(c.attention_scale) - 1) > 1e-5) {
    hparams.unsupported("attention.scale", "a value other than 1/sqrt(key_length) = " +
                                               std::to_string(c.attention_scale));
  }
}

// A mixture has experts in all of its layers.
void read_experts(const HparamReader& hparams, const ArchSpec& spec, ModelConfig& c) {
  if (!spec.experts) return;
  c.n_experts = static_cast<int>(hparams.get_int("expert_count", 0, 0, kMaxExperts));
  if (c.n_experts == 0) return;
  c.n_experts_used = static_cast<int>(
      hparams.require_int("expert_used_count", 1, std::min(c.n_experts, kMaxExpertsUsed)));
  c.expert_size = static_cast<int>(
      hparams.get_int("expert_feed_forward_length", c.intermediate_size, 1, kMaxWidth));
}

void read_vocabulary(const HparamReader& hparams, ModelConfig& c,
                     std::vector<std::string>* warnings) {
  const GgufFile& file = hparams.file();
  const char* key = "tokenizer.ggml.tokens";
  const GgufValue* tokens = file.find(key);
  // The target's, with the tokens it has.
  if (c.draft_head && file.find_tensor("token_embd.weight") == nullptr) {
    c.vocab_size = static_cast<int>(hparams.get_int(
        "vocab_size",
        tokens != nullptr && tokens->is_array() ? static_cast<std::int64_t>(tokens->count()) : 0, 1,
        kMaxContext));
  } else {
    c.vocab_size = read_vocab_size(file, c.hidden_size);
  }
  c.n_tokens = c.vocab_size;
  if (tokens == nullptr) return;
  if (!tokens->is_array()) {
    throw file.make_error(
        ErrorCode::kModelFormat, "wrong_type",
        std::string("key '") + key + "' should be an array, found " + tokens->type_name(), key);
  }
  const auto rows = static_cast<std::uint64_t>(c.vocab_size);
  const std::uint64_t count = tokens->count();
  // Checkpoints pad the embedding to a multiple of up to 256 rows; more says that the two do not
  // match.
  const std::uint64_t largest_padding = std::max<std::uint64_t>(rows / 100, 255);
  const bool beyond = count > rows && first_token_beyond(file, rows).has_value();
  if (count == 0 || beyond || (count < rows && rows - count > largest_padding)) {
    throw file.make_error(ErrorCode::kModelFormat, "shape_mismatch",
                          "tensor 'token_embd.weight' has " + std::to_string(rows) + " rows, but " +
                              key + " holds " + std::to_string(count) + " tokens",
                          key, "token_embd.weight");
  }
  c.n_tokens = static_cast<int>(std::min(count, rows));
  if (count < rows && warnings != nullptr) {
    warnings->push_back("padded_vocabulary: the embedding has " + std::to_string(rows - count) +
                        " rows more than there are tokens; they are never produced");
  }
}

void read_layers(const HparamReader& hparams, const ArchSpec& spec, FilePart part, ModelConfig& c) {
  const bool next = part == FilePart::kNextTokens || has_only_next_tokens(hparams.file());
  if (next && spec.read_next_layers == nullptr) {
    if (hparams.get_int("nextn_predict_layers", 0, 0, kMaxContext) == 0)
      throw hparams.file().make_error(
          ErrorCode::kUnsupported, "no_next_tokens",
          "there is no block that predicts further tokens: models of architecture '" +
              std::string(spec.name) + "' have none; use another drafter, or give a draft model",
          "general.architecture");
    hparams.unsupported("nextn_predict_layers", "a block that predicts further tokens");
  }
  if (next) read_next_tokens(hparams, c);
  c.layers.assign(static_cast<std::size_t>(c.n_layers), spec.layer);
  const auto read = next ? spec.read_next_layers : spec.read_layers;
  if (read != nullptr) read(hparams, c);
}

void number_cache_layers(ModelConfig& c) {
  int n_attention = 0;
  int n_recurrent = 0;
  for (LayerSpec& layer : c.layers)
    layer.cache_layer = layer.recurrent ? n_recurrent++ : n_attention++;
}

}  // namespace

ModelConfig read_model_config(const GgufFile& file, std::vector<std::string>* warnings,
                              FilePart part) {
  HparamReader hparams(file);
  const ArchSpec* spec = find_arch(hparams.architecture());
  if (spec == nullptr) {
    std::string names;
    for (const std::string& name : supported_architectures())
      names.append(names.empty() ? "" : ", ").append(name);
    throw file.make_error(ErrorCode::kUnsupported, "architecture",
                          "architecture '" + printable(hparams.architecture()) +
                              "' is not supported; this build runs " + names,
                          "general.architecture");
  }
  refuse_variants(hparams, *spec);

  ModelConfig c;
  c.architecture = hparams.architecture();
  c.name = printable(file.get_string("general.name", ""));
  c.norm_kind = spec->norm_kind;
  c.n_blocks = static_cast<int>(hparams.require_int("block_count", 1, kMaxLayers));
  hparams.set_n_layers(c.n_blocks);
  c.n_layers =
      c.n_blocks - static_cast<int>(hparams.get_int("nextn_predict_layers", 0, 0, c.n_blocks - 1));
  c.hidden_size = static_cast<int>(hparams.require_int("embedding_length", 1, kMaxWidth));
  // Files of mixtures need not say what networks would have that they lack.
  const bool of_experts = spec->experts && !hparams.has("feed_forward_length") &&
                          hparams.has("expert_feed_forward_length");
  c.intermediate_size = static_cast<int>(hparams.require_int(
      of_experts ? "expert_feed_forward_length" : "feed_forward_length", 1, kMaxWidth));
  const std::int64_t context =
      hparams.require_int("context_length", 1, std::numeric_limits<std::int64_t>::max());
  c.context_length = static_cast<int>(std::min(context, kMaxContext));
  const std::int64_t window =
      hparams.get_int("attention.sliding_window", 0, 0, std::numeric_limits<std::int64_t>::max());
  if (!spec->reads("attention.sliding_window") && window != 0 && window < context)
    hparams.unsupported("attention.sliding_window", "a sliding window");
  read_experts(hparams, *spec, c);
  read_heads(hparams, *spec, c);
  read_rope(hparams, *spec, c.head_dim, c.context_length, c.ropes.emplace_back());
  const char* epsilon_key = spec->norm_kind == Norm::Kind::kRms ? "attention.layer_norm_rms_epsilon"
                                                                : "attention.layer_norm_epsilon";
  c.norm_epsilon = static_cast<float>(hparams.require_float(epsilon_key, 1e-30, 1));
  if (spec->draft_head) read_draft_head(hparams, c);
  read_layers(hparams, *spec, part, c);
  number_cache_layers(c);

  read_vocabulary(hparams, c, warnings);
  c.n_head_tokens = c.n_tokens;
  if (spec->draft_head) read_draft_vocabulary(file, c);
  c.slots = model_slots(file, *spec, c);
  check_slots(file, c.slots, c);
  c.tied_head = !c.draft_head && file.find_tensor("output.weight") == nullptr;
  read_rope_divisors(file, c.ropes[0]);
  return c;
}

std::string context_warning(const ModelConfig& config, int n_ctx) {
  if (n_ctx <= config.usable_context()) return {};
  return "a context of " + std::to_string(n_ctx) + " tokens is more than the " +
         std::to_string(config.usable_context()) +
         " the model was trained for: beyond those its output may be nonsense";
}

int ModelConfig::usable_context() const {
  const RopeConfig& rope = ropes[0];
  if (rope.scaling == RopeScaling::kNone) return context_length;
  const double stretched = std::min(rope.factor * rope.original_context, 1.0 * kMaxContext);
  return std::max(context_length, static_cast<int>(stretched));
}

int ModelConfig::n_recurrent_layers() const {
  return static_cast<int>(std::count_if(layers.begin(), layers.end(),
                                        [](const LayerSpec& layer) { return layer.recurrent; }));
}

int ModelConfig::attention_size() const {
  return std::max(q_size(), static_cast<int>(recurrent.value_size()));
}

int ModelConfig::qkv_size() const {
  const bool gated = std::any_of(layers.begin(), layers.end(),
                                 [](const LayerSpec& layer) { return layer.gates_attention; });
  const int attention = (gated ? 3 : 1) * q_size() + 2 * kv_size();
  const int n =
      std::max(attention, static_cast<int>(recurrent.input_stride() + recurrent.value_size()));
  return layers[0].post_norms || n_experts > 0 ? std::max(n, hidden_size) : n;
}

}  // namespace specdec
