#include "engine/model_scorer.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"

namespace specdec {
ModelScorer::ModelScorer(std::shared_ptr<const LoadedModel> model, KvCache cache, int n_ctx)
    : model_(std::move(model)),
      cache_(std::move(cache)),
      runner_(model_->model()),
      n_ctx_(n_ctx),
      draft_runner_(model_->model()) {}

std::unique_ptr<ModelScorer> ModelScorer::fork() {
  truncate_drafted(0);
  auto scorer = std::make_unique<ModelScorer>(model_, cache_.fork(), n_ctx_);
  scorer->tokens_ = tokens_;
  return scorer;
}

int ModelScorer::vocab_size() const { return model_->model().config().n_tokens; }

Batch ModelScorer::to_model_batch(const ScorerBatch& batch) const {
  Batch model_batch;
  model_batch.tokens = batch.tokens;
  model_batch.parents = batch.parents;
  model_batch.first_output_row = batch.first_output_row;
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
  return model_batch;
}

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

void ModelScorer::draft(const ScorerBatch& batch, int n_layers) {
  if (n_layers != draft_layers_) truncate_drafted(0);
  draft_layers_ = n_layers;
  Batch model_batch = to_model_batch(batch);
  if (model_batch.output == OutputKind::kNone) model_batch.output = OutputKind::kHidden;
  feed_drafted(model_batch);
}

void ModelScorer::truncate_drafted(int n) {
  if (n >= n_drafted()) return;
  cache_.truncate(length() + n);
  drafted_.resize(static_cast<std::size_t>(n));
  drafted_hidden_.resize(static_cast<std::size_t>(n) *
                         static_cast<std::size_t>(model_->model().config().hidden_size));
}

int ModelScorer::n_layers() const { return model_->model().config().n_layers; }

void ModelScorer::check_room(int n_rows) const {
  if (length() + n_rows <= n_ctx_) return;
  throw Error(ErrorCode::kContextFull, "the context of " + std::to_string(n_ctx_) +
                                           " tokens holds " + std::to_string(length()) +
                                           ": no room for " + std::to_string(n_rows) + " more");
}

int ModelScorer::max_chain_steps() const {
  return model_->model().can_chain() ? kMaxChainSteps : 1;
}

int ModelScorer::forward_chain(const ScorerBatch& batch, int n_steps) {
  const auto n_rows = static_cast<int>(batch.tokens.size());
  // Reading a text is long enough to be worth no more than a step.
  if (n_steps == 1 || n_rows > ReadingPace::kFirstRows || !model_->model().can_chain()) {
    forward(batch);
    return 1;
  }
  check_room(n_rows + n_steps - 1);
  truncate_drafted(0);
  tokens_.reserve(tokens_.size() + batch.tokens.size() + static_cast<std::size_t>(n_steps));
  const int before = length();
  const int n_done = runner_.forward_chain(to_model_batch(batch), n_steps, cache_, cancel_);
  first_row_ = before;
  note_chain(batch.tokens, n_done);
  return n_done;
}

// Room for them was made before.
void ModelScorer::note_chain(std::span<const TokenId> tokens, int n_done) {
  first_result_row_ = 0;
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  const int last_row = static_cast<int>(tokens.size()) - 1;
  for (int step = 0; step + 1 < n_done; ++step)
    tokens_.push_back(runner_.results().argmax(last_row + step));
}

bool ModelScorer::can_follow(const TokenScorer& draft) const {
  const auto* other = dynamic_cast<const ModelScorer*>(&draft);
  return other != nullptr && other != this &&
         specdec::can_follow(model_->model(), other->model_->model());
}

void ModelScorer::forward_behind(DraftChain& chain, const ScorerBatch& batch,
                                 std::span<const std::int32_t> sources,
                                 const std::function<int()>& n_used) {
  auto* const draft = dynamic_cast<ModelScorer*>(chain.scorer);
  SPECDEC_CHECK(draft != nullptr && draft != this);
  const std::size_t n_rows = batch.tokens.size();
  const std::size_t n_chain = chain.batch.tokens.size();
  check_room(static_cast<int>(n_rows));
  truncate_drafted(0);
  draft->truncate_drafted(0);
  // Room first: nothing may throw between the growth of a cache and of its list.
  tokens_.reserve(tokens_.size() + n_rows);
  draft->tokens_.reserve(draft->tokens_.size() + n_chain + static_cast<std::size_t>(chain.n_steps));
  taken_.assign(batch.tokens.begin(), batch.tokens.end());
  Batch model_batch = to_model_batch(batch);
  model_batch.tokens = taken_;
  LeadingChain leading;
  leading.runner = &draft->runner_;
  leading.batch = to_model_batch(chain.batch);
  leading.n_steps = chain.n_steps;
  leading.cache = &draft->cache_;
  const int before = length();
  const int draft_before = draft->length();
  std::size_t n_taken = 0;
  const auto take = [&](const LeadingChain& made) {
    chain.n_done = made.n_done;
    chain.error = made.error;
    chain.share = made.device_share;
    if (made.n_done > 0) {
      draft->first_row_ = draft_before;
      draft->note_chain(chain.batch.tokens, made.n_done);
    }
    for (std::size_t r = 0; r < n_rows; ++r) {
      const int step = sources[r] / chain.batch.n_best();
      if (sources[r] < 0 || step >= made.n_done) continue;
      const std::span<const TopToken> top =
          draft->runner_.results().top(static_cast<int>(n_chain) - 1 + step);
      const auto rank = static_cast<std::size_t>(sources[r] % chain.batch.n_best());
      if (rank < top.size()) taken_[r] = top[rank].token;
    }
    const int n = n_used();
    n_taken = static_cast<std::size_t>(n);
    return n;
  };
  if (runner_.forward_behind(leading, model_batch, sources, cache_, take, cancel_)) {
    first_row_ = before;
    first_result_row_ = 0;
    tokens_.insert(tokens_.end(), taken_.begin(),
                   taken_.begin() + static_cast<std::ptrdiff_t>(n_taken));
    return;
  }
  chain.n_done = 0;
  chain.error = leading.error;
  ScorerBatch known = batch;
  known.tokens = known.tokens.first(static_cast<std::size_t>(n_used()));
  known.parents = known.parents.first(std::min(known.parents.size(), known.tokens.size()));
  forward(known);
}

void ModelScorer::forward(const ScorerBatch& batch) {
  const auto n_rows = static_cast<int>(batch.tokens.size());
  check_room(n_rows);
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
  Batch model_batch = to_model_batch(batch);
  // Room first: nothing may throw between the cache's growth and the list's.
  tokens_.reserve(tokens_.size() + batch.tokens.size());
  const int before = length();
  int fed = 0;
  try {
    if (n_drafted() > 0) {
      if (n_rows > n_drafted()) {
        feed_drafted(
            {.tokens = batch.tokens.subspan(drafted_.size()), .output = OutputKind::kHidden});
      }
      model_batch.layers = {draft_layers_, -1};
      model_batch.hidden = drafted_hidden_;
      model_batch.n_present = n_rows;
      run(model_batch);
      drafted_.clear();  // they count now
      drafted_hidden_.clear();
      first_row_ = before;
      first_result_row_ = 0;
      tokens_.insert(tokens_.end(), batch.tokens.begin(), batch.tokens.end());
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
      piece.output = OutputKind::kNone;
      run(piece);
      fed += n;
      poll_(length());
    }
    model_batch.tokens = batch.tokens.subspan(static_cast<std::size_t>(fed));
    model_batch.first_output_row = std::max(batch.first_output_row - fed, 0);
    run(model_batch);
  } catch (...) {
    drafted_.clear();
    drafted_hidden_.clear();
    cache_.truncate(before);
    throw;
  }
  first_row_ = before;
  first_result_row_ = fed;
  tokens_.insert(tokens_.end(), batch.tokens.begin(), batch.tokens.end());
}

void ModelScorer::run(const Batch& batch) {
  pace_.time(batch.tokens.size(), [&] { runner_.forward(batch, cache_, cancel_); });
}

void ModelScorer::truncate(int n) {
  truncate_drafted(0);
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
