#include "engine/model_scorer.h"

#include <algorithm>
#include <string>
#include <utility>

#include "backend/stream/work_space.h"
#include "base/error.h"

namespace specdec {
ModelScorer::ModelScorer(std::shared_ptr<const LoadedModel> model, KvCache cache, int n_ctx)
    : model_(std::move(model)),
      cache_(std::move(cache)),
      length_(cache_.length()),
      runner_(model_->model()),
      n_ctx_(n_ctx),
      draft_runner_(model_->model()),
      restorer_(model_->model()) {}

std::unique_ptr<ModelScorer> ModelScorer::fork() {
  auto scorer = std::make_unique<ModelScorer>(model_, settled().fork(), n_ctx_);
  return scorer;
}

const KvCache& ModelScorer::settled() {
  truncate_drafted(0);
  restore();
  return cache_;
}

void ModelScorer::adopt(KvCache cache) {
  drafted_.clear();
  drafted_hidden_.clear();
  cache_ = std::move(cache);
  length_ = cache_.length();
  first_row_ = first_result_row_ = 0;
}

int ModelScorer::vocab_size() const { return model_->model().config().n_tokens; }

// Rows behind the drafted ones through the first layers; afterwards they are drafted ones too.
void ModelScorer::feed_drafted(Batch batch) {
  const auto n_hidden = static_cast<std::size_t>(model_->model().config().hidden_size);
  const std::size_t n_rows = batch.tokens.size();
  drafted_.reserve(drafted_.size() + n_rows);
  drafted_hidden_.reserve((drafted_.size() + n_rows) * n_hidden);
  batch.first_output_row = 0;
  batch.layers = {0, draft_layers_};
  batch.keep_hidden = true;
  draft_runner_.forward(batch, cache_, cancel_);
  for (std::size_t r = 0; r < n_rows; ++r) {
    const std::span<const float> row = draft_runner_.results().hidden(static_cast<int>(r));
    drafted_hidden_.insert(drafted_hidden_.end(), row.begin(), row.end());
  }
  drafted_.insert(drafted_.end(), batch.tokens.begin(), batch.tokens.end());
}

void ModelScorer::shrink(int n) { cache_.truncate(cache_.reachable(n)); }

void ModelScorer::restore() {
  while (cache_.length() < length_) {
    SPECDEC_CHECK(tokens_ != nullptr && static_cast<int>(tokens_->size()) >= length_);
    const int n_held = cache_.length();
    const int n = std::min(length_ - n_held, kMaxBatchRows);
    restorer_.forward({.tokens = std::span<const TokenId>(*tokens_).subspan(
                           static_cast<std::size_t>(n_held), static_cast<std::size_t>(n)),
                       .first_output_row = n,
                       .output = RowOutput::kNone},
                      cache_, cancel_);
  }
}

void ModelScorer::draft(const Batch& batch, int n_layers) {
  restore();
  if (n_layers != draft_layers_) truncate_drafted(0);
  draft_layers_ = n_layers;
  Batch model_batch = batch;
  if (model_batch.output == RowOutput::kNone) model_batch.output = RowOutput::kHidden;
  feed_drafted(model_batch);
}

void ModelScorer::truncate_drafted(int n) {
  if (n >= n_drafted()) return;
  shrink(length() + n);
  const int n_held = std::max(cache_.length() - length(), 0);
  const std::vector<TokenId> lost(drafted_.begin() + n_held, drafted_.begin() + n);
  drafted_.resize(static_cast<std::size_t>(n_held));
  drafted_hidden_.resize(static_cast<std::size_t>(n_held) *
                         static_cast<std::size_t>(model_->model().config().hidden_size));
  if (lost.empty()) return;
  restore();
  feed_drafted({.tokens = lost, .output = RowOutput::kHidden});
}

int ModelScorer::n_layers() const { return model_->model().config().n_layers; }

void ModelScorer::check_room(int n_rows) const {
  if (length() + n_rows <= n_ctx_) return;
  throw Error(ErrorCode::kContextFull, "the context of " + std::to_string(n_ctx_) +
                                           " tokens holds " + std::to_string(length()) +
                                           ": no room for " + std::to_string(n_rows) + " more");
}

int ModelScorer::max_tree_rows() const {
  return model_->gpu() != nullptr ? stream::kTreeRows : kMaxBatchRows;
}

int ModelScorer::max_steps() const { return model_->model().can_run_steps() ? kMaxSteps : 1; }

int ModelScorer::forward_steps(const Batch& batch, int n_steps) {
  const auto n_rows = static_cast<int>(batch.tokens.size());
  // Reading a text is long enough to be worth no more than a step.
  if (n_steps == 1 || n_rows > ReadingPace::kFirstRows || !model_->model().can_run_steps()) {
    forward(batch);
    return 1;
  }
  check_room(n_rows + n_steps - 1);
  truncate_drafted(0);
  restore();
  const int before = length();
  const int n_done = runner_.forward_steps(batch, n_steps, cache_, cancel_);
  length_ = cache_.length();
  first_row_ = before;
  first_result_row_ = 0;
  return n_done;
}

bool ModelScorer::can_follow(const TokenScorer& draft) const {
  const auto* other = dynamic_cast<const ModelScorer*>(&draft);
  return other != nullptr && other != this &&
         specdec::can_follow(model_->model(), other->model_->model());
}

void ModelScorer::issue(TokenScorer& draft, Steps& steps, const Batch& batch,
                        std::span<const std::int32_t> picks) {
  auto* const other = dynamic_cast<ModelScorer*>(&draft);
  SPECDEC_CHECK(other != nullptr && other != this);
  check_room(static_cast<int>(batch.tokens.size()));
  truncate_drafted(0);
  other->truncate_drafted(0);
  restore();
  other->restore();
  issued_ = {.draft = other,
             .draft_length = other->length(),
             .steps = &steps,
             .batch = batch,
             .has_pass = false};
  runner_.issue(other->runner_, other->cache_, steps, batch, picks, cache_, cancel_);
}

void ModelScorer::finish() {
  issued_.has_pass = runner_.finish();
  if (issued_.steps->n_done == 0) return;
  issued_.draft->length_ = issued_.draft->cache_.length();
  issued_.draft->first_row_ = issued_.draft_length;
  issued_.draft->first_result_row_ = 0;
}

void ModelScorer::keep(int n_rows) {
  if (issued_.has_pass) {
    const int before = length();
    runner_.keep(n_rows);
    length_ = cache_.length();
    first_row_ = before;
    first_result_row_ = 0;
    return;
  }
  Batch known = issued_.batch;
  known.tokens = known.tokens.first(static_cast<std::size_t>(n_rows));
  known.parents = known.parents.first(std::min(known.parents.size(), known.tokens.size()));
  forward(known);
}

void ModelScorer::forward(const Batch& batch) {
  const auto n_rows = static_cast<int>(batch.tokens.size());
  check_room(n_rows);
  restore();
  if (!batch.taps.empty()) truncate_drafted(0);  // nobody saw what entered the first layers
  piece_taps_.clear();
  if (n_drafted() > 0) {
    const bool chain = is_chain(batch.parents);
    int n_same = 0;
    while (chain && n_same < std::min(n_drafted(), n_rows) &&
           drafted_[static_cast<std::size_t>(n_same)] ==
               batch.tokens[static_cast<std::size_t>(n_same)]) {
      ++n_same;
    }
    truncate_drafted(n_same);
  }
  if (n_drafted() < kKvSlack) cache_.forget();
  Batch model_batch = batch;
  const int before = length();
  int fed = 0;
  try {
    if (n_drafted() > 0) {
      if (n_rows > n_drafted()) {
        feed_drafted(
            {.tokens = batch.tokens.subspan(drafted_.size()), .output = RowOutput::kHidden});
      }
      model_batch.layers = {draft_layers_, -1};
      model_batch.hidden = drafted_hidden_;
      model_batch.n_present = n_rows;
      run(model_batch);
      length_ = cache_.length();
      drafted_.clear();  // they count now
      drafted_hidden_.clear();
      first_row_ = before;
      first_result_row_ = 0;
      return;
    }
    // Rows nobody wants the output of can go in pieces.
    const int n_silent = batch.output == RowOutput::kNone
                             ? n_rows - 1
                             : std::min(batch.first_output_row, n_rows - 1);
    while (poll_ && batch.parents.empty() && n_silent - fed > pace_.rows()) {
      const int n = pace_.rows();
      Batch piece;
      piece.tokens =
          batch.tokens.subspan(static_cast<std::size_t>(fed), static_cast<std::size_t>(n));
      piece.first_output_row = n;
      piece.output = RowOutput::kNone;
      piece.taps = batch.taps;
      run(piece);
      for (int r = 0; r < n && !batch.taps.empty(); ++r) {
        const std::span<const float> row = runner_.results().taps(r);
        piece_taps_.insert(piece_taps_.end(), row.begin(), row.end());
      }
      fed += n;
      poll_(before + fed);
    }
    model_batch.tokens = batch.tokens.subspan(static_cast<std::size_t>(fed));
    model_batch.first_output_row = std::max(batch.first_output_row - fed, 0);
    run(model_batch);
  } catch (...) {
    drafted_.clear();
    drafted_hidden_.clear();
    shrink(before);
    throw;
  }
  length_ = cache_.length();
  first_row_ = before;
  first_result_row_ = fed;
}

std::span<const float> ModelScorer::taps(int row) const {
  if (row >= first_result_row_) return runner_.results().taps(row - first_result_row_);
  const auto n_rows = static_cast<std::size_t>(first_result_row_);
  const std::size_t width = piece_taps_.size() / n_rows;
  SPECDEC_CHECK(row >= 0 && width > 0);
  return std::span<const float>(piece_taps_).subspan(static_cast<std::size_t>(row) * width, width);
}

KvCache& ModelScorer::lend(int n_rows) {
  check_room(n_rows);
  truncate_drafted(0);
  restore();
  cache_.forget();
  return cache_;
}

void ModelScorer::take_back() {
  first_row_ = length_;
  length_ = cache_.length();
}

void ModelScorer::run(const Batch& batch) {
  pace_.time(batch.tokens.size(), [&] { runner_.forward(batch, cache_, cancel_); });
}

void ModelScorer::truncate(int n) {
  truncate_drafted(0);
  if (n < cache_.length()) shrink(n);
  length_ = n;
}

int ModelScorer::reachable(int n) const { return cache_.reachable(std::min(n, cache_.length())); }

void ModelScorer::keep_path(std::span<const std::int32_t> rows) {
  cache_.keep_path(first_row_, rows);
  length_ = cache_.length();
}

}  // namespace specdec
