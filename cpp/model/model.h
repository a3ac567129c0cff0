// A loaded transformer: configuration, weights, one forward pass. Immutable after load, so any
// number of threads and sessions share one; what changes lives in KvCache and Scratch.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/device_backend.h"
#include "base/token.h"
#include "gguf/reader.h"
#include "kv/kv_cache.h"
#include "model/config.h"
#include "model/scratch.h"

namespace specdec {

// What a forward pass computes for the rows from first_output_row on.
enum class OutputKind {
  kNone,    // only the cache is filled
  kHidden,  // the residual stream after the last layer of the range, before the final norm
  kArgmax,  // best token
  kTop,     // the best top_k tokens, and the log of the sum of e^logit
  kLogits,  // the full row, and the best token
};

// Layers [first, last); last -1: to the end. Self-speculation drafts with a prefix of the layers.
struct LayerRange {
  int first = 0;
  int last = -1;
};

// Rows to feed after the content of a cache. Row r continues row parents[r], -1: the cache's last
// position; its position is the length of the cache plus its depth.
struct Batch {
  std::span<const TokenId> tokens = {};        // [n_rows], 1 <= n_rows <= kMaxBatchRows
  std::span<const std::int32_t> parents = {};  // [n_rows], each below its row; empty: a chain
  int first_output_row = 0;
  OutputKind output = OutputKind::kLogits;
  int top_k = 1;  // of kTop: 1..kMaxHeadTopK
  // Blocks of kHeadBlock token ids that the head computes, ascending and distinct; empty: all. The
  // other tokens count as impossible.
  std::span<const std::int32_t> head_blocks = {};
  LayerRange layers = {};
  // [n_rows, hidden_size] to start from instead of the embedding of `tokens`, or empty: continues a
  // pass that stopped after layer layers.first (its output kHidden).
  std::span<const float> hidden = {};
  // So many of the first rows are the cache's last positions, filled by that pass for the layers
  // below layers.first.
  int n_present = 0;
  bool keep_hidden = false;  // besides the output, the residual stream as kHidden would give it
};

inline constexpr int kMaxBatchRows = 512;

class Model;

// A chain of a draft model that a pass of its target follows: what Model::forward_chain() takes,
// and what became of it.
struct LeadingChain {
  const Model* model = nullptr;
  Batch batch = {};
  int n_steps = 1;
  KvCache* cache = nullptr;
  Scratch* scratch = nullptr;

  int n_done = 0;                 // steps that were made
  std::exception_ptr error = {};  // why there are none
  double device_share = 0.0;      // of the device's time for both
};

// One token for each of several sequences, which share the reading of the weights. A row has the
// bits it has alone.
struct StepBatch {
  std::span<const TokenId> tokens = {};   // [n_rows], 1 <= n_rows <= kMaxBatchRows
  std::span<KvCache* const> caches = {};  // [n_rows], distinct; row r follows caches[r]'s content
  OutputKind output = OutputKind::kLogits;
  int top_k = 1;  // of kTop: 1..kMaxHeadTopK
};

struct LoadProgress {
  std::uint64_t n_bytes_done = 0;
  std::uint64_t n_bytes_total = 0;
};

struct LoadOptions {
  // The last n_device_layers layers and, if there are any, the output head go to `device`, which
  // also reserves their caches of n_device_ctx positions of kv_type. 0: all on the backend given.
  std::shared_ptr<DeviceBackend> device = {};
  int n_device_layers = 0;
  int n_device_ctx = 0;
  // With all layers on the device the embedding too: passes begin there, and chains can run there.
  bool device_embedding = true;
  KvType device_kv_type = KvType::kF16;
  // Rewrites matrices that become smaller by it, the head too, in this format.
  std::optional<DType> requantize = {};
  bool check_tensors = false;  // read every tensor once and refuse NaN and infinity
  // Called after every tensor; return false to stop with Error(kCancelled).
  std::function<bool(const LoadProgress&)> on_progress = {};
};

struct ModelMemory {
  std::size_t requantize_saved_bytes = 0;  // of the file's matrices
  std::size_t weights_bytes = 0;           // held by the backend and by float vectors
  // Read from the mapped file, shared with its page cache: the embedding, and matrices that are
  // views.
  std::size_t mapped_bytes = 0;
  std::size_t device_bytes = 0;  // weights on the device
};

class Model {
 public:
  // Throws Error; see read_model_config for the checks. The file stays mapped while the model
  // lives.
  [[nodiscard]] static std::shared_ptr<const Model> load(const std::string& path,
                                                         std::shared_ptr<Backend> backend,
                                                         const LoadOptions& options = {});
  [[nodiscard]] static std::shared_ptr<const Model> load(std::shared_ptr<const GgufFile> file,
                                                         std::shared_ptr<Backend> backend,
                                                         const LoadOptions& options = {});
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  [[nodiscard]] const ModelConfig& config() const noexcept;
  [[nodiscard]] const std::shared_ptr<const GgufFile>& file() const noexcept;
  // Of the layers on the CPU.
  [[nodiscard]] const std::shared_ptr<Backend>& backend() const noexcept;
  // Of the others; null: there are none.
  [[nodiscard]] const std::shared_ptr<DeviceBackend>& device() const noexcept { return device_; }
  [[nodiscard]] int n_device_layers() const noexcept {
    return config_.n_layers - first_device_layer_;
  }
  [[nodiscard]] const std::vector<std::string>& warnings()
      const noexcept;  // of reader and validation

  // What a cache for this model looks like, and what one position costs in it.
  [[nodiscard]] KvShape kv_shape(KvType type) const;
  [[nodiscard]] std::size_t kv_bytes_per_token(KvType type) const;
  [[nodiscard]] ModelMemory memory() const noexcept;

  // Feeds the batch after cache.length() positions and advances the cache by n_rows. Strong
  // guarantee: when it throws, cache.length() is unchanged and what it held is untouched. Errors:
  // kInvalidArgument (bad token, parent, row or layer range), kContextFull, kCancelled when *cancel
  // became true, kNumerical when a row of logits is not finite, kResource.
  //
  // A layer range fills the cache of those layers only: truncate before positions are used by
  // others.
  void forward(const Batch& batch, KvCache& cache, Scratch& scratch,
               const std::atomic<bool>* cancel = nullptr) const;
  // Feeds a chain with output kArgmax or kTop for its last row, then, n_steps - 1 times, the best
  // token of the row before, without coming back to the host in between. Results of step i, and its
  // bits, are those of row n_rows - 1 + i of one forward after the other. Returns how many steps
  // there are: fewer than n_steps when the logits of a later one are not finite. The cache grows by
  // n_rows + that - 1. Errors as forward(), and kUnsupported unless can_chain().
  [[nodiscard]] bool can_chain() const noexcept;
  [[nodiscard]] int forward_chain(const Batch& batch, int n_steps, KvCache& cache, Scratch& scratch,
                                  const std::atomic<bool>* cancel = nullptr) const;
  // Makes `chain` and, behind it, this model's pass over `batch`, of which row r with sources[r] >=
  // 0 has, instead of its token, that of the chain's results: step * its top_k + rank. The host
  // waits once, for both. Then the chain's results and cache are as after its forward_chain(), and
  // n_used(chain) says how many of the batch's first rows count (at least the first that is
  // output): results and cache are as after a forward() of those, and what is not finite matters
  // only in them. At most kMaxFollowingRows rows, with output kArgmax, kTop or kLogits. Errors of
  // the chain are told in it: then nothing has changed but that, unless its first step alone
  // failed, when n_used() is asked all the same. All others as of forward(), n_used()'s own
  // included. Returns whether there was a pass. kUnsupported unless can_follow(*chain.model).
  [[nodiscard]] bool can_follow(const Model& draft) const noexcept {
    return can_chain() && draft.can_chain() && device_ == draft.device_;
  }
  [[nodiscard]] bool forward_behind(LeadingChain& chain, const Batch& batch,
                                    std::span<const std::int32_t> sources, KvCache& cache,
                                    Scratch& scratch,
                                    const std::function<int(const LeadingChain&)>& n_used,
                                    const std::atomic<bool>* cancel = nullptr) const;
  // Likewise for one row of each sequence; when it throws, no cache has changed.
  void step(const StepBatch& batch, Scratch& scratch,
            const std::atomic<bool>* cancel = nullptr) const;

 private:
  struct Weights;
  struct Pass;
  struct Rows;
  struct LayerRun;
  Model(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend);

  void load_weights(const LoadOptions& options);
  void reserve_device(const LoadOptions& options);
  // Both return the steps that were made.
  int forward_rows(const Batch& batch, int n_steps, std::span<KvCache* const> caches,
                   Scratch& scratch, const std::atomic<bool>* cancel) const;
  int run_rows(const Batch& batch, int n_steps, std::span<KvCache* const> caches, Scratch& scratch,
               const std::atomic<bool>* cancel) const;
  void check_batch(const Batch& batch, const KvCache& cache) const;
  void check_chain(const Batch& batch, int n_steps, const KvCache& cache) const;
  // Rows reserved, embedded where the CPU does that, and rotations.
  [[nodiscard]] Pass begin_rows(const Batch& batch, int n_steps, std::span<KvCache* const> caches,
                                Scratch& scratch, const std::atomic<bool>* cancel) const;
  [[nodiscard]] int end_rows(const Batch& batch, const Pass& pass, Scratch& scratch) const;
  void embed(const Batch& batch, float* out, std::int64_t stride) const;
  void fill_rope(const Batch& batch, const Pass& pass, Scratch& scratch) const;
  // device_view: of the layer's cache on the device; null: the layer is on the CPU.
  void run_layer(int layer, const Pass& pass, const Rows& rows,
                 const KvLayerView* device_view) const;
  [[nodiscard]] DevicePass device_pass(const Batch& batch, const Pass& pass,
                                       Scratch& scratch) const;
  void run_on_device(const Batch& batch, const Pass& pass, Scratch& scratch) const;
  void issue_on_device(const Batch& batch, const Pass& pass, Scratch& scratch) const;
  void prepare_head(const Batch& batch, const Pass& pass, Scratch& scratch) const;
  void run_head(const Batch& batch, const Pass& pass, const Rows& rows,
                std::span<const std::int32_t> blocks, Scratch& scratch) const;
  [[nodiscard]] int check_head(const Batch& batch, const Pass& pass, Scratch& scratch) const;

  std::shared_ptr<const GgufFile> file_;
  std::shared_ptr<Backend> backend_;
  std::shared_ptr<DeviceBackend> device_;
  int first_device_layer_ = 0;  // n_layers: none
  int reservation_ = -1;        // on the device
  ModelConfig config_;
  std::vector<RopeFrequencies> ropes_;  // of config_.ropes
  std::vector<std::string> warnings_;
  std::unique_ptr<Weights> weights_;
  std::uint64_t id_ = 0;  // unique in the process
};

}  // namespace specdec
