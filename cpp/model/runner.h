// Computes with a loaded model: forward passes, their work space and results. One pass at a time;
// give each thread its own.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <span>

#include "kv/kv_cache.h"
#include "model/batch.h"
#include "model/model.h"
#include "model/results.h"
#include "model/work_space.h"

namespace specdec {

class Runner;
struct Pass;
struct PassRows;
struct LayerRun;

// A chain of a draft model that a pass of its target follows: what Runner::forward_chain() takes,
// and what became of it.
struct LeadingChain {
  Runner* runner = nullptr;
  Batch batch = {};
  int n_steps = 1;
  KvCache* cache = nullptr;

  int n_done = 0;                 // steps that were made
  std::exception_ptr error = {};  // why there are none
  double device_share = 0.0;      // of the device's time for both
};

class Runner {
 public:
  // The model must outlive it.
  explicit Runner(const Model& model) : model_(model) {}
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  // Feeds the batch after cache.length() positions and advances the cache by n_rows. Strong
  // guarantee: when it throws, cache.length() is unchanged and what it held is untouched. Errors:
  // kInvalidArgument (bad token, parent, row or layer range), kContextFull, kCancelled when *cancel
  // became true, kNumerical when a row of logits is not finite, kResource.
  //
  // A layer range fills the cache of those layers only: truncate before positions are used by
  // others.
  void forward(const Batch& batch, KvCache& cache, const std::atomic<bool>* cancel = nullptr);
  // Likewise for one row of each sequence; when it throws, no cache has changed.
  void step(const StepBatch& batch, const std::atomic<bool>* cancel = nullptr);
  // Feeds a chain with output kArgmax or kTop for its last row, then, n_steps - 1 times, the best
  // token of the row before, without coming back to the host in between. Results of step i, and its
  // bits, are those of row n_rows - 1 + i of one forward after the other. Returns how many steps
  // there are: fewer than n_steps when the logits of a later one are not finite. The cache grows by
  // n_rows + that - 1. Errors as forward(), and kUnsupported unless model.can_chain().
  [[nodiscard]] int forward_chain(const Batch& batch, int n_steps, KvCache& cache,
                                  const std::atomic<bool>* cancel = nullptr);
  // Makes `chain` and, behind it, this model's pass over `batch`, of which row r with sources[r] >=
  // 0 has, instead of its token, that of the chain's results: step * its top_k + rank. The host
  // waits once, for both. Then the chain's results and cache are as after its forward_chain(), and
  // n_used(chain) says how many of the batch's first rows count (at least the first that is
  // output): results and cache are as after a forward() of those, and what is not finite matters
  // only in them. At most kMaxFollowingRows rows, with output kArgmax, kTop or kLogits. Errors of
  // the chain are told in it: then nothing has changed but that, unless its first step alone
  // failed, when n_used() is asked all the same. All others as of forward(), n_used()'s own
  // included. Returns whether there was a pass. kUnsupported unless can_follow() the chain's model.
  [[nodiscard]] bool forward_behind(LeadingChain& chain, const Batch& batch,
                                    std::span<const std::int32_t> sources, KvCache& cache,
                                    const std::function<int(const LeadingChain&)>& n_used,
                                    const std::atomic<bool>* cancel = nullptr);

  [[nodiscard]] const Model& model() const noexcept { return model_; }
  [[nodiscard]] const Results& results() const noexcept { return results_; }
  [[nodiscard]] std::size_t n_bytes() const noexcept {
    return work_.n_bytes() + results_.n_bytes();
  }

 private:
  void check_chain(const Batch& batch, int n_steps, const KvCache& cache) const;
  // Both return the steps that were made.
  int forward_rows(const Batch& batch, int n_steps, std::span<KvCache* const> caches,
                   const std::atomic<bool>* cancel);
  int run(const Batch& batch, const Pass& pass);
  // Rows reserved, embedded where the CPU does that, and rotations.
  [[nodiscard]] Pass begin(const Batch& batch, int n_steps, std::span<KvCache* const> caches,
                           const std::atomic<bool>* cancel);
  // Results can be read then. Returns the steps that were made.
  [[nodiscard]] int end(const Batch& batch, const Pass& pass);
  void embed(const Batch& batch, float* out, std::int64_t stride) const;
  void place(const Batch& batch, const Pass& pass);
  [[nodiscard]] const float* rope_table(bool long_context, int last);
  [[nodiscard]] LayerRun layer_run(int layer, const Pass& pass, const PassRows& rows,
                                   const KvLayerView* device_view) const;

  void prepare_head(const Batch& batch, const Pass& pass);
  void run_head(const Batch& batch, const Pass& pass, const PassRows& rows);
  [[nodiscard]] int check_head(const Batch& batch, const Pass& pass);

  [[nodiscard]] DevicePass device_pass(const Batch& batch, const Pass& pass);
  void run_on_device(const Batch& batch, const Pass& pass);
  void issue_on_device(const Batch& batch, const Pass& pass);

  const Model& model_;
  WorkSpace work_;
  Results results_;
};

// Whether a pass of `model` can run behind a chain of `draft`: all of both is on one device.
[[nodiscard]] inline bool can_follow(const Model& model, const Model& draft) noexcept {
  return model.can_chain() && draft.can_chain() && model.device() == draft.device();
}

}  // namespace specdec
