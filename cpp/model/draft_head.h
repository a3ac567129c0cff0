// Heads that draft for a target: one layer over what the target says of a position, beside the
// token that follows it (EAGLE-3, and the blocks behind a model that predict further tokens).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/token.h"
#include "gguf/reader.h"

namespace specdec {

class HparamReader;
struct ModelConfig;

// Of a file that holds both: the model, or the block behind its last layer that predicts further
// tokens. A file with such a block alone has only the latter.
enum class FilePart { kModel, kNextTokens };

struct DraftHeadConfig {
  // As Batch::taps of the target, ascending; empty: the model is no head.
  std::vector<std::int32_t> target_layers;
  int target_hidden_size = 0;
  // A block that predicts further tokens: it reads the target's last hidden state behind the output
  // norm, and what it says itself is normed likewise.
  bool next_tokens = false;
  bool norm_before_residual = false;  // what the layer adds to is the normed feature
  bool norm_before_fc = false;        // one norm over all taps side by side
  bool own_embedding = true;          // else the target's
  bool own_output = true;             // else the target's head
  std::vector<TokenId> target_ids;    // [n_head_tokens] of the head's rows; empty: the same

  [[nodiscard]] explicit operator bool() const { return !target_layers.empty(); }
  // Floats that the target's taps of one row have.
  [[nodiscard]] std::int64_t tap_size() const {
    return static_cast<std::int64_t>(target_layers.size()) * target_hidden_size;
  }
};

// Whether the file has such a block, and nothing but it.
[[nodiscard]] bool has_next_tokens(const GgufFile& file);
[[nodiscard]] bool has_only_next_tokens(const GgufFile& file);
// Makes the configuration that of the first block behind the last layer: which one it is, what it
// reads and shares.
void read_next_tokens(const HparamReader& hparams, ModelConfig& config);

// Both check what the file says; the second one when the vocabulary is known.
void read_draft_head(const HparamReader& hparams, ModelConfig& config);
void read_draft_vocabulary(const GgufFile& file, ModelConfig& config);

// Why a head cannot draft for a target with this configuration; empty: it can.
[[nodiscard]] std::string why_not_for(const ModelConfig& head, const ModelConfig& target);

}  // namespace specdec
