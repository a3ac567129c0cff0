// Computes with a loaded model: forward passes, their work space and results. One pass at a time;
// give each thread its own.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "kv/kv_cache.h"
#include "model/batch.h"
#include "model/model.h"
#include "model/results.h"
#include "model/work_space.h"

namespace specdec {

class Runner;
struct Pass;
struct PassPart;
struct PassRows;
struct LayerRun;
class PartWeights;

class Runner {
 public:
  // The model must outlive it, and so must `lender`: the target of a head that drafts, whose
  // embedding and output head it takes where its own file has none. Throws as Model::lend().
  explicit Runner(const Model& model, const Model* lender = nullptr);
  ~Runner();
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
  // Likewise for rows of several sequences; when it throws, no cache has changed. kUnsupported
  // where layers are on a device.
  void forward_parts(const PartsBatch& batch, const std::atomic<bool>* cancel = nullptr);
  // Feeds a chain with output kArgmax or kTop for its last row, then, n_steps - 1 times, the best
  // token of the row before, without coming back to the host in between. Results of step i, and its
  // bits, are those of row n_rows - 1 + i of one forward after the other. Returns how many steps
  // there are: fewer than n_steps when the logits of a later one are not finite. The cache grows by
  // n_rows + that - 1. Errors as forward(), and kUnsupported unless model.can_run_steps().
  [[nodiscard]] int forward_steps(const Batch& batch, int n_steps, KvCache& cache,
                                  const std::atomic<bool>* cancel = nullptr);

  // A pass in two phases behind steps of a draft, whose tokens it takes as they are found: row r
  // with picks[r] >= 0 has that result of the steps, step * their top_k + rank. issue() puts both
  // on the device's stream; everything given must live until keep(). finish() waits, once for both:
  // then the draft's results and cache are as after its forward_steps(), and keep(n) says how many
  // of the batch's first rows count, at least the first that is output: results and cache are as
  // after a forward() of those, and what is not finite matters only in them. Without it the pass is
  // as if it had never been. At most kMaxFollowingRows rows, with output kArgmax, kTop or kLogits.
  //
  // Errors of the steps are told in them: finish() returns false, nothing has changed but that,
  // and there is nothing to keep; but when the first step's logits alone are not finite there is a
  // pass all the same. All others as of forward(). kUnsupported unless can_follow() the draft's
  // model.
  void issue(Runner& draft, KvCache& draft_cache, Steps& steps, const Batch& batch,
             std::span<const std::int32_t> picks, KvCache& cache,
             const std::atomic<bool>* cancel = nullptr);
  [[nodiscard]] bool finish();
  void keep(int n_rows);

  // Of heads that draft: taps of the target [n_rows, tap_size] to features [n_rows, hidden_size],
  // for Batch::hidden. Results of the last pass are gone then.
  void fuse(std::span<const float> taps, int n_rows, std::span<float> features);

  [[nodiscard]] const Model& model() const noexcept { return model_; }
  [[nodiscard]] const Results& results() const noexcept { return results_; }
  // After kNumerical: the first row of the pass that is not finite.
  [[nodiscard]] int bad_row() const noexcept { return bad_row_; }
  [[nodiscard]] std::size_t n_bytes() const noexcept {
    return work_.n_bytes() + results_.n_bytes();
  }

 private:
  struct Issued;
  void check_following(const Runner& draft, const Batch& batch, std::span<const std::int32_t> picks,
                       const KvCache& cache) const;
  void check_head_pass(const Batch& batch) const;
  void check_steps(const Batch& batch, int n_steps, const KvCache& cache) const;
  // Both return the steps that were made.
  int forward_rows(const Batch& batch, int n_steps, KvCache& cache,
                   const std::atomic<bool>* cancel);
  // begin(), run() and what every pass ends with.
  int feed(const Batch& batch, int n_steps, std::span<const PassPart> parts,
           const std::atomic<bool>* cancel);
  int run(const Batch& batch, const Pass& pass);
  // Rows reserved, embedded where the CPU does that, and rotations.
  // parts: of one sequence one, which is all rows, or several.
  [[nodiscard]] Pass begin(const Batch& batch, int n_steps, std::span<const PassPart> parts,
                           const std::atomic<bool>* cancel);
  // Results can be read then. Returns the steps that were made.
  [[nodiscard]] int end(const Batch& batch, const Pass& pass);
  void tap(int layer, const Pass& pass);
  void embed(const Batch& batch, float* out, std::int64_t stride) const;
  void copy_hidden(const Batch& batch, float* out, std::int64_t stride) const;
  void place(const Pass& pass);
  [[nodiscard]] const float* rope_table(bool long_context, int last);
  [[nodiscard]] LayerRun layer_run(int layer, const Pass& pass, const PassRows& rows,
                                   const KvLayerView* device_view) const;

  void prepare_head(const Batch& batch, const Pass& pass);
  void run_head(const Batch& batch, const Pass& pass, const PassRows& rows);
  void norm_said(const Pass& pass, const PassRows& rows) const;
  [[nodiscard]] int check_head(const Batch& batch, const Pass& pass);

  [[nodiscard]] DevicePass device_pass(const Batch& batch, const Pass& pass);
  void run_on_device(const Batch& batch, const Pass& pass);
  void issue_on_device(const Batch& batch, const Pass& pass);

  const Model& model_;
  const Model* lender_;
  const PartWeights* lent_;  // by it; null without one
  WorkSpace work_;
  Results results_;
  int bad_row_ = -1;
  std::unique_ptr<Issued> issued_;  // by this one, and not kept yet
};

// Whether a pass of `model` can run behind steps of `draft`: all of both is on one device.
[[nodiscard]] inline bool can_follow(const Model& model, const Model& draft) noexcept {
  return model.can_run_steps() && draft.can_run_steps() && model.device() == draft.device();
}

}  // namespace specdec
