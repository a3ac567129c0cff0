#include "engine/model_scorer.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "base/error.h"

namespace specdec {
namespace {

constexpr int kFirstPiece = 32;  // rows of the first piece of a long batch

}  // namespace

ModelScorer::ModelScorer(std::shared_ptr<const LoadedModel> model, KvCache cache, int n_ctx,
                         const std::atomic<bool>* cancel)
    : model_(std::move(model)), cache_(std::move(cache)), n_ctx_(n_ctx), cancel_(cancel) {}

std::unique_ptr<ModelScorer> ModelScorer::fork(const std::atomic<bool>* cancel) {
  auto scorer = std::make_unique<ModelScorer>(model_, cache_.fork(), n_ctx_, cancel);
  scorer->tokens_ = tokens_;
  return scorer;
}

int ModelScorer::vocab_size() const { return model_->model().config().n_tokens; }

void ModelScorer::forward(const ScorerBatch& batch) {
  const auto n_rows = static_cast<int>(batch.tokens.size());
  if (length() + n_rows > n_ctx_) {
    throw Error(ErrorCode::kContextFull, "the context of " + std::to_string(n_ctx_) +
                                             " tokens holds " + std::to_string(length()) +
                                             ": no room for " + std::to_string(n_rows) + " more");
  }
  Batch model_batch;
  model_batch.parents = batch.parents;
  switch (batch.output) {
    case RowOutput::kNone:
      model_batch.output = OutputKind::kNone;
      break;
    case RowOutput::kArgmax:
      model_batch.output = OutputKind::kArgmax;
      break;
    case RowOutput::kTop:
      model_batch.output = OutputKind::kTop;
      break;
    case RowOutput::kLogits:
      model_batch.output = OutputKind::kLogits;
      break;
  }
  static_assert(kTokenBlock == kHeadBlock && kMaxTopK == kMaxHeadTopK);
  model_batch.top_k = batch.top_k;
  model_batch.head_blocks = batch.token_blocks;
  // Room first: nothing may throw between the cache's growth and the list's.
  tokens_.reserve(tokens_.size() + batch.tokens.size());
  const int before = length();
  int fed = 0;
  try {
    // Rows nobody wants the output of can go in pieces.
    const int n_silent = batch.output == RowOutput::kNone
                             ? n_rows - 1
                             : std::min(batch.first_output_row, n_rows - 1);
    while (poll_ && batch.parents.empty() && n_silent - fed > piece_rows()) {
      const int n = piece_rows();
      Batch piece;
      piece.tokens =
          batch.tokens.subspan(static_cast<std::size_t>(fed), static_cast<std::size_t>(n));
      piece.first_output_row = n;
      piece.output = OutputKind::kNone;
      run(piece);
      fed += n;
      poll_(length());
    }
    model_batch.tokens = batch.tokens.subspan(static_cast<std::size_t>(fed));
    model_batch.first_output_row = std::max(batch.first_output_row - fed, 0);
    run(model_batch);
  } catch (...) {
    cache_.truncate(before);
    throw;
  }
  first_row_ = before;
  first_scratch_row_ = fed;
  tokens_.insert(tokens_.end(), batch.tokens.begin(), batch.tokens.end());
}

void ModelScorer::run(const Batch& batch) {
  const auto start = std::chrono::steady_clock::now();
  model_->model().forward(batch, cache_, scratch_, cancel_);
  if (batch.tokens.size() >= kFirstPiece) {
    const std::chrono::duration<double, std::milli> elapsed =
        std::chrono::steady_clock::now() - start;
    ms_per_row_ = elapsed.count() / static_cast<double>(batch.tokens.size());
  }
}

// About a tenth of a second.
int ModelScorer::piece_rows() const {
  if (ms_per_row_ <= 0) return kFirstPiece;
  return static_cast<int>(
             std::clamp(100.0 / ms_per_row_, 16.0, static_cast<double>(kMaxBatchRows))) /
         16 * 16;
}

void ModelScorer::truncate(int n) {
  cache_.truncate(n);
  tokens_.resize(static_cast<std::size_t>(n));
}

void ModelScorer::keep_path(std::span<const std::int32_t> rows) {
  std::vector<TokenId> kept;
  kept.reserve(rows.size());
  for (const std::int32_t row : rows)
    kept.push_back(tokens_.at(static_cast<std::size_t>(first_row_ + row)));
  cache_.keep_path(first_row_, rows);
  tokens_.resize(static_cast<std::size_t>(first_row_));
  tokens_.insert(tokens_.end(), kept.begin(), kept.end());
}

}  // namespace specdec
