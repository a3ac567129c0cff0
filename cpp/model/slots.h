// Where the tensors of a model go: one table, made by its architecture, that checking, loading and
// device sizing walk.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/reader.h"

namespace specdec {

struct ArchSpec;
struct ModelConfig;

// What the forward pass knows a tensor by. Biases follow their matrices.
enum class Part : std::uint8_t {
  // of the model
  kEmbedding,
  kOutputNorm,
  kOutputNormBias,
  kHead,
  kHeadBias,
  kRopeDivisors,
  kShortRopeDivisors,
  kLongRopeDivisors,
  kFuse,  // of heads that draft: all taps to a feature
  kFuseNorm,
  kTargetIds,
  // of a layer
  kAttentionNorm,
  kAttentionNormBias,
  kFeatureNorm,  // of heads that draft, beside the former
  kFeatureNormBias,
  kEmbeddingNorm,  // of blocks that predict further tokens
  kJoin,           // [normed embedding; normed feature] to a hidden state
  kQkv,            // [Q; K; V] in one matrix, in place of the next three
  kQkvBias,
  kQ,
  kQBias,
  kK,
  kKBias,
  kV,
  kVBias,
  kQNorm,  // before rope
  kKNorm,
  kAttentionSinks,
  kAttentionOut,
  kAttentionOutBias,
  kAttentionPostNorm,  // of what attention adds
  kAttentionPostNormBias,
  kFfnNorm,
  kFfnNormBias,
  kGate,
  kUp,
  kUpBias,
  kDown,
  kDownBias,
  kRouter,  // of experts
  kRouterBias,
  kGateExperts,
  kGateExpertsBias,
  kUpExperts,
  kUpExpertsBias,
  kDownExperts,
  kDownExpertsBias,
  kSharedRouter,  // of the one expert that all rows use
  kSharedGate,
  kSharedUp,
  kSharedDown,
  kFfnPostNorm,
  kFfnPostNormBias,
  // of a recurrent layer, beside kQkv and kAttentionOut
  kRecurrentGate,
  kRecurrentAlpha,
  kRecurrentBeta,
  kRecurrentGates,  // both in one matrix, in place of these two
  kRecurrentConv,   // [n_channels, n_taps]
  kRecurrentStepBias,
  kRecurrentDecay,
  kRecurrentNorm,
};
inline constexpr std::size_t kNumParts = static_cast<std::size_t>(Part::kRecurrentNorm) + 1;

// Read with the configuration, not loaded.
[[nodiscard]] constexpr bool is_configuration(Part part) {
  return part == Part::kRopeDivisors || part == Part::kShortRopeDivisors ||
         part == Part::kLongRopeDivisors || part == Part::kTargetIds;
}

[[nodiscard]] constexpr bool is_router(Part part) {
  return part == Part::kRouter || part == Part::kSharedRouter;
}

// Of a matrix or a norm.
[[nodiscard]] constexpr Part bias_of(Part part) {
  return static_cast<Part>(static_cast<std::uint8_t>(part) + 1);
}

enum class Presence { kNever, kOptional, kRequired };
// Experts: a stack of matrices. Ids: whole numbers, of kIdType.
enum class SlotKind { kMatrix, kVector, kExperts, kIds };

struct Slot {
  Part part;
  int layer;                         // -1: of the model
  std::string name;                  // "blk.3.attn_q.weight"
  std::vector<std::uint64_t> shape;  // innermost first
  Presence presence;
  SlotKind kind;
  // Of a tensor that several matrices share: the rows of this one. No rows: it has all.
  std::uint64_t first_row = 0;
  std::uint64_t n_rows = 0;

  [[nodiscard]] std::uint64_t end_row() const {
    return n_rows == 0 ? shape[1] : first_row + n_rows;
  }
  // Rows read those experts that they choose; one that is alone is read by all.
  [[nodiscard]] bool is_chosen() const { return kind == SlotKind::kExperts && shape[2] > 1; }
  // Of its tensor's bytes those that are of this slot.
  [[nodiscard]] std::uint64_t share_of(std::uint64_t n_bytes) const {
    return n_rows == 0 ? n_bytes : n_bytes / shape[1] * n_rows;
  }
};

// Slots of the model, or of one layer, in the words of an architecture. What is never there is left
// out.
class SlotTable {
 public:
  // `layer` -1: names are as given, else behind "blk.N.".
  SlotTable(const GgufFile& file, const ArchSpec& spec, const ModelConfig& config, int layer,
            std::vector<Slot>& slots)
      : file_(file), spec_(spec), config_(config), layer_(layer), slots_(slots) {}

  [[nodiscard]] const ModelConfig& config() const { return config_; }
  [[nodiscard]] const ArchSpec& spec() const { return spec_; }
  [[nodiscard]] std::vector<Slot>& slots() { return slots_; }
  [[nodiscard]] int layer() const { return layer_; }

  // NAME.weight [n_in, n_out] and NAME.bias [n_out].
  void linear(Part part, const char* name, std::int64_t n_in, std::int64_t n_out,
              Presence bias = Presence::kNever, Presence weight = Presence::kRequired);
  // NAME.weight [hidden_size], and NAME.bias for layer norms.
  void norm(Part part, const char* name);
  void vector(Part part, const std::string& name, std::int64_t n,
              Presence presence = Presence::kRequired);

  // [n] ids, if the file has any.
  void ids(Part part, const std::string& name, std::int64_t n);
  // Numbers in rows of n_in.
  void table(Part part, const std::string& name, std::int64_t n_in, std::int64_t n_out);

  // One matrix, or three: what the file has, unless only the one is allowed.
  void qkv(Presence bias, bool fused_only = false);
  void gated_ffn();
  // Likewise with the rows of the gate before those of ffn_up in one matrix.
  void fused_gated_ffn();
  void plain_ffn(Presence bias);
  // A router and, in stacks, gated networks of config.expert_size; those without biases may have
  // the rows of each gate before those of ffn_up in one stack.
  void experts(Presence bias = Presence::kNever);
  // A gated network of config.shared_expert_size that all rows use; weighed by a router of its own
  // or not.
  void shared_expert(Presence router);
  // Of a block that predicts further tokens, before its layer.
  void join();
  // What llama and many others have: a norm before attention, one before a gated network.
  void pre_norm_layer(Presence qkv_bias, Presence out_bias);

 private:
  void add(Part part, const std::string& name, std::vector<std::uint64_t> shape, Presence presence,
           SlotKind kind);
  [[nodiscard]] std::string prefix() const;
  void half_of_rows(bool second);  // is the last slot, of its tensor

  const GgufFile& file_;
  const ArchSpec& spec_;
  const ModelConfig& config_;
  int layer_;
  std::vector<Slot>& slots_;
};

// All slots of a file of this architecture, the model's first, then layer by layer.
[[nodiscard]] std::vector<Slot> model_slots(const GgufFile& file, const ArchSpec& spec,
                                            const ModelConfig& config);

// Whether a tensor is of a block behind the last layer or, where that block is all that is read, of
// anything else.
[[nodiscard]] bool is_unused(std::string_view name, const ModelConfig& config);

// Throws missing_tensor, shape_mismatch, unexpected_tensor.
void check_slots(const GgufFile& file, const std::vector<Slot>& slots, const ModelConfig& config);

// Shape of the embedding, read from the file: [hidden_size, vocab_size].
[[nodiscard]] int read_vocab_size(const GgufFile& file, int hidden_size);

}  // namespace specdec
