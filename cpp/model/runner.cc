#include "model/runner.h"

#include <algorithm>
#include <new>
#include <string>
#include <vector>

#include "model/pass.h"

namespace specdec {

void Runner::forward(const Batch& batch, KvCache& cache, const std::atomic<bool>* cancel) {
  check_batch(batch, model_.config(), cache);
  KvCache* const caches[] = {&cache};
  forward_rows(batch, 1, caches, cancel);
}

void Runner::step(const StepBatch& step, const std::atomic<bool>* cancel) {
  if (step.caches.size() != step.tokens.size()) {
    throw_invalid("a step of " + std::to_string(step.tokens.size()) + " rows has " +
                  std::to_string(step.caches.size()) + " caches");
  }
  if (model_.device() != nullptr) {
    throw Error(ErrorCode::kUnsupported,
                model_.file()->path() +
                    ": several sequences in one pass run on the CPU only; load the model with "
                    "n_gpu_layers 0");
  }
  const Batch batch{.tokens = step.tokens, .output = step.output, .top_k = step.top_k};
  std::vector<const KvCache*> seen(step.caches.begin(), step.caches.end());
  std::sort(seen.begin(), seen.end());
  if (std::adjacent_find(seen.begin(), seen.end()) != seen.end()) {
    throw_invalid("two rows of a step have the same cache");
  }
  for (const KvCache* cache : step.caches) check_batch(batch, model_.config(), *cache);
  forward_rows(batch, 1, step.caches, cancel);
}

int Runner::forward_rows(const Batch& batch, int n_steps, std::span<KvCache* const> caches,
                         const std::atomic<bool>* cancel) {
  const int n_rows = static_cast<int>(batch.tokens.size());
  int n_done = 1;
  try {
    n_done = run(batch, begin(batch, n_steps, caches, cancel));
    model_.file()->check_whole();  // also after passes without a head
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kResource,
                "not enough memory for a forward pass of " + std::to_string(n_rows) + " rows");
  }
  for (KvCache* cache : caches) {
    cache->advance(caches.size() > 1 ? 1 : n_rows - batch.n_present + n_done - 1);
  }
  return n_done;
}

}  // namespace specdec
