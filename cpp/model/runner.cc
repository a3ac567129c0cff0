#include "model/runner.h"

#include <new>
#include <string>
#include <vector>

#include "model/pass.h"

namespace specdec {

// A head needs what its target says, and here and there the target's weights.
void Runner::check_head_pass(const Batch& batch) const {
  const DraftHeadConfig& head = model_.config().draft_head;
  if (!head) return;
  if (batch.hidden.empty() || batch.n_present > 0 || !batch.taps.empty()) {
    throw Error(ErrorCode::kUnsupported, model_.file()->path() +
                                             ": is a head that drafts for a target and says "
                                             "nothing by itself; give it as the draft of one");
  }
  SPECDEC_CHECK(lender_ != nullptr || (head.own_embedding && head.own_output && !head.next_tokens));
}

void Runner::forward(const Batch& batch, KvCache& cache, const std::atomic<bool>* cancel) {
  check_batch(batch, model_.config(), cache);
  check_head_pass(batch);
  forward_rows(batch, 1, cache, cancel);
}

void Runner::forward_parts(const PartsBatch& given, const std::atomic<bool>* cancel) {
  if (model_.device() != nullptr) {
    throw Error(ErrorCode::kUnsupported,
                model_.file()->path() +
                    ": several sequences in one pass run on the CPU only; load the model with "
                    "n_gpu_layers 0");
  }
  check_parts(given, model_.config());
  check_head_pass({});
  Batch batch{.output = given.output,
              .top_k = given.top_k,
              .keep_logits = given.keep_logits,
              .taps = given.taps};
  std::vector<PassPart> parts;
  work_.tokens.clear();
  for (const BatchPart& part : given.parts) {
    const Batch rows{.tokens = part.tokens, .parents = part.parents};
    parts.push_back(whole(*part.cache, rows));
    parts.back().first_row = static_cast<int>(work_.tokens.size());
    work_.tokens.insert(work_.tokens.end(), part.tokens.begin(), part.tokens.end());
    if (part.silent) batch.first_output_row = static_cast<int>(work_.tokens.size());
  }
  batch.tokens = work_.tokens;
  if (parts.size() == 1) batch.parents = given.parts[0].parents;
  feed(batch, 1, parts, cancel);
  for (const PassPart& part : parts) part.cache->advance(part.n_rows);
}

int Runner::forward_rows(const Batch& batch, int n_steps, KvCache& cache,
                         const std::atomic<bool>* cancel) {
  const PassPart parts[] = {whole(cache, batch)};
  const int n_done = feed(batch, n_steps, parts, cancel);
  cache.advance(parts[0].n_rows - batch.n_present + n_done - 1);
  return n_done;
}

int Runner::feed(const Batch& batch, int n_steps, std::span<const PassPart> parts,
                 const std::atomic<bool>* cancel) {
  try {
    const int n_done = run(batch, begin(batch, n_steps, parts, cancel));
    model_.check_whole();  // also after passes without a head
    return n_done;
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kResource, "not enough memory for a forward pass of " +
                                          std::to_string(batch.tokens.size()) + " rows");
  }
}

}  // namespace specdec
