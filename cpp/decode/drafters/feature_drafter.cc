#include "decode/drafters/feature_drafter.h"

// A head on the target's hidden states proposes a chain: each token from the row of the one before,
// whose own output stands in for what the target would have said. After every pass the rows of what
// was accepted are read again with what the target did say.
#include <algorithm>
#include <vector>

#include "base/error.h"
#include "decode/drafters/draft_chain.h"
#include "decode/feature_cache.h"

namespace specdec {
namespace {

class FeatureDrafter final : public ChainDrafter {
 public:
  FeatureDrafter(std::string_view name, const DraftModelOptions& options, FeatureCache& cache)
      : ChainDrafter(options), name_(name), cache_(cache) {}

  std::string_view name() const override { return name_; }
  std::span<const std::int32_t> wanted_taps() const override {
    return cache_.scorer().target_taps();
  }

  void begin(const DraftSetup& setup, std::span<const TokenId> prompt) override {
    start(setup, prompt, cache_.scorer().vocab_size());
    cache_.align(prompt);
  }
  int n_followed(std::span<const TokenId> text) override {
    cache_.align(text);
    return cache_.n_known();
  }
  int n_behind(std::span<const TokenId> committed) override {
    cache_.align(committed);
    return std::max(cache_.n_waiting(), 1);
  }

  void read(const ReadInfo& info) override {
    take(info.text, info.first_row, info.taps);
    read_most(0);
  }
  void commit(const CommitInfo& info) override {
    if (info.n_new == 0) return;
    head_.add(info.committed.last(static_cast<std::size_t>(info.n_new)),
              cache_.scorer().vocab_size());
    take(info.committed, static_cast<int>(info.committed.size()) - info.n_new - 1, info.taps);
    // Others draft: what they had accepted is read by and by.
    read_most(FeatureCache::kMostWaiting);
  }

  DraftProposal propose(std::span<const TokenId> committed, int max_tokens,
                        Chance& chance) override;

  std::vector<TreeNode> grow(std::span<const TokenId> committed, const TreeBounds& bounds,
                             Chance& chance) override;

  void align(std::span<const TokenId> committed) override { cache_.align(committed); }
  void reset() override { cache_.clear(); }

 private:
  class Rows;

  // Where the head's context would be full it begins anew with the last of these rows.
  void take(std::span<const TokenId> text, int row, std::span<const float> taps) {
    cache_.add(text, row, taps);
    const int n_ctx = cache_.scorer().n_ctx();
    if (cache_.n_known() - cache_.first_row() <= n_ctx) return;
    const std::size_t width = cache_.scorer().n_tapped();
    const auto n_rows = static_cast<int>(taps.size() / width);
    const int n_kept = std::min(n_rows, std::max(n_ctx / 2, 1));
    cache_.clear();
    cache_.add(text, row + n_rows - n_kept, taps.last(static_cast<std::size_t>(n_kept) * width));
  }

  // All that waits but the last row, whose output is the first draft, if there is more.
  void read_most(int n_allowed) {
    if (cache_.n_waiting() > n_allowed + 1) cache_.read_all_but_last(setup_.cancel);
  }

  std::string_view name_;
  FeatureCache& cache_;
};

DraftProposal FeatureDrafter::propose(std::span<const TokenId> committed, int max_tokens,
                                      Chance& chance) {
  throw_failure();
  cache_.align(committed);
  const int n_rows = static_cast<int>(committed.size()) - 1;
  // What the target said there is not known, or was read for another text: from the next pass on.
  if (cache_.n_known() < n_rows || cache_.n_waiting() == 0) return {};
  // The last drafted token is never fed.
  FeatureScorer& scorer = cache_.scorer();
  const int n = std::min(max_tokens, scorer.n_ctx() - (n_rows - cache_.first_row()) + 1);
  if (n < 1) return {};
  throw_if_cancelled(setup_.cancel);
  const int row = cache_.read(sampler_.output(), sampler_.top_k(), head_.blocks());
  return draft_chain(scorer, committed, row, n, chance, [&](TokenId token, int from, int n_more) {
    if (n_more > 0)
      cache_.append(token, scorer.feature(from), sampler_.output(), sampler_.top_k(),
                    head_.blocks());
    return 0;
  });
}

// What its rows are: each carries what the one before it said, which has to be kept.
class FeatureDrafter::Rows final : public ChainDrafter::Tree {
 public:
  Rows(FeatureDrafter& drafter, std::size_t n_committed, const TreeBounds& bounds, Chance& chance)
      : Tree(drafter, drafter.cache_.scorer(), n_committed, bounds, chance), drafter_(drafter) {}

  int read_text() {
    const int row =
        drafter_.cache_.read(drafter_.sampler_.output(), top_k_, drafter_.head_.blocks());
    keep_output(row);
    return row;
  }
  bool feed(std::span<const TokenId> tokens, std::span<const std::int32_t> parents,
            int n_known) override {
    FeatureCache& cache = drafter_.cache_;
    const auto n_rows = static_cast<int>(tokens.size());
    if (cache.scorer().n_ctx() - cache.n_read() + cache.first_row() < n_rows) return false;
    throw_if_cancelled(drafter_.setup_.cancel);
    for (int row = n_known; row < n_rows; ++row) {
      const auto from = static_cast<std::size_t>(parents[static_cast<std::size_t>(row)] + 1);
      features_.insert(features_.end(), outputs_[from].begin(), outputs_[from].end());
    }
    cache.append_tree({.tokens = tokens,
                       .parents = parents,
                       .first_output_row = n_known,
                       .output = drafter_.sampler_.output(),
                       .top_k = top_k_,
                       .head_blocks = drafter_.head_.blocks(),
                       .hidden = features_,
                       .keep_hidden = true});
    for (int row = n_known; row < n_rows; ++row) keep_output(row);
    return true;
  }

 private:
  void keep_output(int row) {
    const std::span<const float> output = drafter_.cache_.scorer().feature(row);
    outputs_.emplace_back(output.begin(), output.end());
  }

  FeatureDrafter& drafter_;
  std::vector<float> features_;              // of the rows fed
  std::vector<std::vector<float>> outputs_;  // of the text's last row, and of each row fed
};

std::vector<TreeNode> FeatureDrafter::grow(std::span<const TokenId> committed,
                                           const TreeBounds& bounds, Chance& chance) {
  cache_.align(committed);
  const int n_rows = static_cast<int>(committed.size()) - 1;
  if (!sampler_.grows_trees() || cache_.n_known() < n_rows || cache_.n_waiting() == 0) return {};
  Rows tree(*this, committed.size(), bounds, chance);
  const int root_row = tree.read_text();
  std::vector<TreeNode> nodes = grow_tree(tree, root_row, bounds);
  cache_.drop_drafts();
  return nodes;
}

}  // namespace

std::unique_ptr<Drafter> make_feature_drafter(std::string_view name,
                                              const DraftModelOptions& options,
                                              FeatureCache& cache) {
  return std::make_unique<FeatureDrafter>(name, options, cache);
}

}  // namespace specdec
