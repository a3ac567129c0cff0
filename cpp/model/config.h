// The hyper-parameters of a model, read from GGUF metadata and checked: whatever the file says,
// every number here is safe as an index, divisor, size or loop bound.
#pragma once

#include <string>
#include <vector>

#include "backend/backend.h"
#include "gguf/reader.h"
#include "model/draft_head.h"
#include "model/layer.h"
#include "model/rope.h"
#include "model/slots.h"

namespace specdec {

inline constexpr int kMaxExperts = 1024;
inline constexpr int kMaxExpertSize = 1 << 20;

struct ModelConfig {
  std::string architecture;
  std::string name;  // general.name, made printable; may be empty
  int n_layers = 0;
  int hidden_size = 0;
  int n_heads = 0;
  int n_kv_heads = 0;  // divides n_heads
  int head_dim = 0;
  int intermediate_size = 0;
  int n_experts = 0;  // of a layer that is a mixture; 0: none is
  int n_experts_used = 0;
  int expert_size = 0;            // their intermediate size
  int shared_expert_size = 0;     // of the one that all rows use; 0: there is none
  int vocab_size = 0;             // rows of the embedding, padding included
  int n_tokens = 0;               // tokens that exist, <= vocab_size
  int n_head_tokens = 0;          // rows of the output head; n_tokens but of heads that draft
  int context_length = 0;         // what the model was made for
  std::vector<RopeConfig> ropes;  // of one n_rot; LayerSpec::rope is one of them
  Norm::Kind norm_kind = Norm::Kind::kRms;
  float norm_epsilon = 0;
  std::vector<LayerSpec> layers;  // [n_layers]
  RecurrentShape recurrent = {};  // of the recurrent ones
  int n_blocks = 0;     // in the file; those behind the model's layers predict further tokens
  int first_block = 0;  // in the file, of layer 0
  float attention_scale = 0;
  float embedding_scale = 1;        // embedded tokens are multiplied by it
  float logit_scale = 1;            // and logits, in the weights of the output norm
  float logit_cap = 0;              // of the scaled logits, as LayerSpec::score_cap
  bool tied_head = false;           // the head is the embedding matrix
  DraftHeadConfig draft_head = {};  // of those that draft for a target
  std::vector<Slot> slots;          // what the file may hold, and where it goes

  // What the model was made for or, where rope is scaled, what the scaling stretches it to.
  [[nodiscard]] int usable_context() const;
  [[nodiscard]] int q_size() const { return n_heads * head_dim; }
  [[nodiscard]] int kv_size() const { return n_kv_heads * head_dim; }
  // Of the rows that hold what attention, or a recurrence, gives.
  [[nodiscard]] int attention_size() const;
  [[nodiscard]] int n_recurrent_layers() const;
  // Of the rows that hold q, k and v, later also what is to be normed before it is added, or the
  // input of experts.
  [[nodiscard]] int qkv_size() const;
  [[nodiscard]] int n_rot() const { return ropes[0].n_rot; }
  // cos and sin of one row for all ropes.
  [[nodiscard]] int rope_width() const { return n_rot() * static_cast<int>(ropes.size()); }
};

// Names of the architectures this build runs, as in general.architecture.
[[nodiscard]] std::vector<std::string> supported_architectures();

// Reads and checks metadata and the tensor directory: names, shapes, nothing missing, nothing
// unknown. Errors are Error(kModelFormat) with reason missing_key, wrong_type, bad_value,
// bad_hparam, missing_tensor, unexpected_tensor, shape_mismatch, or Error(kUnsupported) naming the
// feature (reason "architecture", "hparam", ...). What is odd but harmless goes to `warnings` when
// given.
[[nodiscard]] ModelConfig read_model_config(const GgufFile& file,
                                            std::vector<std::string>* warnings = nullptr,
                                            FilePart part = FilePart::kModel);

// A longer context than usable_context() is allowed; this is what to tell a user, or "".
[[nodiscard]] std::string context_warning(const ModelConfig& config, int n_ctx);
inline constexpr int kMaxContextLength = 1 << 30;

}  // namespace specdec
