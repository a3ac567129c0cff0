#include "model/draft_head.h"

#include <cstring>
#include <unordered_set>

#include "model/config.h"
#include "model/hparams.h"

namespace specdec {

namespace {

constexpr std::size_t kMostTaps = 8;
constexpr std::int64_t kMostTargetLayers = 4096;
constexpr std::int64_t kMostWidth = std::int64_t{1} << 20;
constexpr const char* kIds = "d2t";

[[noreturn]] void fail_ids(const GgufFile& file, const TensorInfo& tensor,
                           const std::string& what) {
  throw file.make_error(ErrorCode::kModelFormat, "bad_value", "tensor 'd2t': " + what, {}, kIds,
                        tensor.offset);
}

std::vector<TokenId> read_ids(const GgufFile& file, const TensorInfo& tensor, int n_head_tokens,
                              int n_tokens) {
  if (tensor.dtype != kIdType) {
    fail_ids(file, tensor,
             std::string("the ids should be I64, found ") + dtype_traits(tensor.dtype).name);
  }
  const std::span<const std::byte> data = file.tensor_data(tensor);
  std::vector<TokenId> ids;
  std::unordered_set<TokenId> seen;
  for (int i = 0; i < n_head_tokens; ++i) {
    std::int64_t id = 0;
    std::memcpy(&id, data.data() + static_cast<std::size_t>(i) * sizeof(id), sizeof(id));
    if (id < 0 || id >= n_tokens) {
      fail_ids(file, tensor,
               "id " + std::to_string(id) + " at index " + std::to_string(i) + " is not in [0, " +
                   std::to_string(n_tokens) + ")");
    }
    if (!seen.insert(static_cast<TokenId>(id)).second) {
      fail_ids(file, tensor,
               "id " + std::to_string(id) + " at index " + std::to_string(i) +
                   " was there before; the ids are the target's, not offsets");
    }
    ids.push_back(static_cast<TokenId>(id));
  }
  return ids;
}

// Number of the first block behind the last layer; -1: there is none.
std::int64_t first_next_block(const GgufFile& file) {
  const std::string arch(file.get_string("general.architecture", ""));
  const std::uint64_t n_blocks = file.get_u64(arch + ".block_count", 0);
  const std::uint64_t n_next = file.get_u64(arch + ".nextn_predict_layers", 0);
  if (n_next == 0 || n_next >= n_blocks || n_blocks > kMostTargetLayers) return -1;
  return static_cast<std::int64_t>(n_blocks - n_next);
}

}  // namespace

bool has_next_tokens(const GgufFile& file) {
  const std::int64_t block = first_next_block(file);
  return block >= 0 &&
         file.find_tensor("blk." + std::to_string(block) + ".nextn.eh_proj.weight") != nullptr;
}

bool has_only_next_tokens(const GgufFile& file) {
  return file.find_tensor("blk.0.attn_norm.weight") == nullptr && has_next_tokens(file);
}

void read_next_tokens(const HparamReader& hparams, ModelConfig& config) {
  const GgufFile& file = hparams.file();
  const int n_next = config.n_blocks - config.n_layers;
  const std::string block = "blk." + std::to_string(config.n_layers) + ".";
  if (n_next == 0 || file.find_tensor(block + "nextn.eh_proj.weight") == nullptr) {
    throw file.make_error(
        ErrorCode::kModelFormat, "missing_tensor",
        "there is no block that predicts further tokens: " + hparams.key("nextn_predict_layers") +
            " is " + std::to_string(n_next) + ", and '" + block + "nextn.eh_proj.weight' is " +
            (n_next == 0 ? "not looked for" : "missing") +
            "; convert the checkpoint again, or use another drafter",
        hparams.key("nextn_predict_layers"), block + "nextn.eh_proj.weight");
  }
  DraftHeadConfig& head = config.draft_head;
  head.next_tokens = true;
  head.target_layers = {config.n_layers};
  head.target_hidden_size = config.hidden_size;
  const bool alone = has_only_next_tokens(file);
  const auto has = [&](const char* name) { return file.find_tensor(name) != nullptr; };
  const bool embeds = has((block + "nextn.embed_tokens.weight").c_str());
  const bool speaks = has((block + "nextn.shared_head_head.weight").c_str());
  head.own_embedding = embeds || (alone && has("token_embd.weight"));
  head.own_output = speaks || (alone && has("output.weight"));
  config.first_block = config.n_layers;
  config.n_layers = 1;
}

void read_draft_head(const HparamReader& hparams, ModelConfig& config) {
  DraftHeadConfig& head = config.draft_head;
  const GgufFile& file = hparams.file();
  const std::string key = hparams.key("target_layers");
  const GgufValue& value = file.require(key);
  const std::vector<std::uint64_t> layers = file.get_u64_array(key);
  if (!value.is_array() || layers.empty() || layers.size() > kMostTaps) {
    hparams.fail("target_layers", "1 to " + std::to_string(kMostTaps) + " layers of the target",
                 std::to_string(layers.size()));
  }
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (layers[i] > kMostTargetLayers || (i > 0 && layers[i] <= layers[i - 1])) {
      hparams.fail("target_layers",
                   "ascending layers from 0 to " + std::to_string(kMostTargetLayers),
                   std::to_string(layers[i]) + " at index " + std::to_string(i));
    }
    head.target_layers.push_back(static_cast<std::int32_t>(layers[i]));
  }
  head.target_hidden_size =
      static_cast<int>(hparams.get_int("target_hidden_size", config.hidden_size, 1, kMostWidth));
  head.norm_before_residual = hparams.get_bool("norm_before_residual", false);
  head.norm_before_fc = hparams.get_bool("norm_before_fc", false);
  head.own_embedding = file.find_tensor("token_embd.weight") != nullptr;
  head.own_output = file.find_tensor("output.weight") != nullptr;
  if (config.n_layers != 1) {
    hparams.fail("block_count", "1, the one layer of a head", std::to_string(config.n_layers));
  }
  const bool narrow = head.target_hidden_size != config.hidden_size;
  if (narrow && (!head.own_embedding || !head.own_output)) {
    hparams.fail("target_hidden_size",
                 std::to_string(config.hidden_size) +
                     " in a head that uses the target's embedding or output head",
                 std::to_string(head.target_hidden_size));
  }
}

void read_draft_vocabulary(const GgufFile& file, ModelConfig& config) {
  const TensorInfo* const output = file.find_tensor("output.weight");
  const TensorInfo* const ids = file.find_tensor(kIds);
  config.n_head_tokens = config.n_tokens;
  if (output == nullptr) {
    if (ids != nullptr) fail_ids(file, *ids, "there is no output.weight that has these rows");
    return;
  }
  const std::uint64_t n_rows = output->shape.size() == 2 ? output->shape[1] : 0;
  const auto n_vocab = static_cast<std::uint64_t>(config.vocab_size);
  if (n_rows < 1 || n_rows > n_vocab || (ids == nullptr && n_rows != n_vocab)) {
    throw file.make_error(
        ErrorCode::kModelFormat, ids == nullptr ? "missing_tensor" : "shape_mismatch",
        "tensor 'output.weight' has " + std::to_string(n_rows) + " rows for the vocabulary of " +
            std::to_string(n_vocab) +
            (ids == nullptr ? " and there is no 'd2t' that says which they are" : ""),
        {}, output->name, output->offset);
  }
  if (ids == nullptr) return;
  if (ids->shape.size() != 1 || ids->shape[0] != n_rows) {
    fail_ids(file, *ids,
             "it should have the " + std::to_string(n_rows) +
                 " ids of the rows of output.weight, found " + std::to_string(ids->n_elements));
  }
  config.n_head_tokens = static_cast<int>(n_rows);
  config.draft_head.target_ids = read_ids(file, *ids, config.n_head_tokens, config.n_tokens);
}

std::string why_not_for(const ModelConfig& head, const ModelConfig& target) {
  const DraftHeadConfig& h = head.draft_head;
  if (target.draft_head) return "the target is a head itself and cannot be drafted for";
  if (h.target_hidden_size != target.hidden_size) {
    return "it was made for a target of width " + std::to_string(h.target_hidden_size) +
           ", and this one has " + std::to_string(target.hidden_size);
  }
  if (h.target_layers.back() > target.n_layers) {
    return "it reads layer " + std::to_string(h.target_layers.back()) +
           " of its target, and this one has " + std::to_string(target.n_layers);
  }
  if (head.n_tokens < target.n_tokens || (!h.own_output && head.n_tokens > target.n_tokens)) {
    return "it was made for " + std::to_string(head.n_tokens) + " tokens, and this one has " +
           std::to_string(target.n_tokens);
  }
  if (h.next_tokens &&
      (head.architecture != target.architecture || h.target_layers.back() != target.n_layers)) {
    return "it predicts further tokens of a " + head.architecture + " model with " +
           std::to_string(h.target_layers.back()) + " layers, and this one is " +
           target.architecture + " with " + std::to_string(target.n_layers);
  }
  for (const TokenId id : h.target_ids) {
    if (id < target.n_tokens) continue;
    return "it drafts token " + std::to_string(id) + ", and the target has " +
           std::to_string(target.n_tokens) + " tokens";
  }
  return {};
}

}  // namespace specdec
