#include "backend/cpu/head_reducer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace specdec {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool better(const TopToken& a, const TopToken& b) {
  if (b.token < 0) return true;
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

}  // namespace

HeadReducer::HeadReducer(const HeadTask& task, int n_threads)
    : task_(task),
      n_blocks_(task.blocks.empty() ? (task.n_tokens + kHeadBlock - 1) / kHeadBlock
                                    : static_cast<std::int64_t>(task.blocks.size())),
      n_groups_((n_blocks_ + kBlocks - 1) / kBlocks),
      n_threads_(n_threads) {
  SPECDEC_CHECK(task.n_tokens <= task.weight->n_out());
  SPECDEC_CHECK(task.top_k >= 1 && task.top_k <= kMaxTopK);
  if (!task.blocks.empty()) {
    SPECDEC_CHECK(task.blocks.front() >= 0 &&
                  std::int64_t{task.blocks.back()} * kHeadBlock < task.n_tokens);
  }
  const auto n_rows = static_cast<std::size_t>(task.n_rows);
  const std::size_t n_lists = static_cast<std::size_t>(n_threads) * n_rows;
  top_.resize(n_lists * static_cast<std::size_t>(task.top_k));
  bad_.resize(n_lists);
  if (task.log_sum_exp != nullptr) {
    group_max_.resize(n_rows * static_cast<std::size_t>(n_groups_));
    group_sum_.resize(group_max_.size());
  }
  if (task.logits != nullptr && !task.blocks.empty()) {
    for (int r = 0; r < task.n_rows; ++r)
      std::fill_n(task.logits + r * task.logits_stride, task.n_tokens, -kInfinity);
  }
}

void HeadReducer::insert(TopToken* top, TopToken candidate) const {
  int at = task_.top_k - 1;
  if (!better(candidate, top[at])) return;
  while (at > 0 && better(candidate, top[at - 1])) {
    top[at] = top[at - 1];
    --at;
  }
  top[at] = candidate;
}

void HeadReducer::add(int thread, std::int64_t group, float* logits, const OpsKernels& ops) {
  const int n_blocks = this->n_blocks(group);
  for (int r = 0; r < task_.n_rows; ++r) {
    float* row = logits + r * kHeadGroup;
    const std::int64_t last_first = block(group, n_blocks - 1) * kHeadBlock;
    const auto n_last =
        static_cast<int>(std::min<std::int64_t>(kHeadBlock, task_.n_tokens - last_first));
    const int n = (n_blocks - 1) * kHeadBlock + n_last;
    if (task_.soft_cap > 0) ops.soft_cap(task_.soft_cap, row, n);
    std::fill(row + n, row + n_blocks * kHeadBlock, -kInfinity);
    if (task_.logits != nullptr) {
      for (int b = 0; b < n_blocks; ++b) {
        const std::int64_t first = block(group, b) * kHeadBlock;
        std::copy_n(row + b * kHeadBlock, b + 1 < n_blocks ? kHeadBlock : n_last,
                    task_.logits + r * task_.logits_stride + first);
      }
    }
    const std::size_t list =
        static_cast<std::size_t>(thread) * static_cast<std::size_t>(task_.n_rows) +
        static_cast<std::size_t>(r);
    TopToken* top = top_.data() + list * static_cast<std::size_t>(task_.top_k);
    const float max = ops.max(row, n);
    if (std::isnan(max)) {
      bad_[list] = 1;
      continue;
    }
    const TopToken& worst = top[task_.top_k - 1];
    if (max > -kInfinity && (worst.token < 0 || max >= worst.logit)) {
      for (int i = 0; i < n; ++i) {
        if (row[i] == -kInfinity || (worst.token >= 0 && row[i] < worst.logit)) continue;
        insert(top,
               {static_cast<TokenId>(block(group, i / kHeadBlock) * kHeadBlock + i % kHeadBlock),
                row[i]});
      }
    }
    if (task_.log_sum_exp != nullptr) {
      const auto at = static_cast<std::size_t>(r * n_groups_ + group);
      group_max_[at] = max;
      group_sum_[at] = max > -kInfinity ? ops.sum_exp(row, n, max) : 0.0F;
    }
  }
}

void HeadReducer::finish() {
  const auto n_rows = static_cast<std::size_t>(task_.n_rows);
  const auto top_k = static_cast<std::size_t>(task_.top_k);
  for (std::size_t r = 0; r < n_rows; ++r) {
    TopToken* top = top_.data() + r * top_k;
    bool bad = bad_[r] != 0;
    for (std::size_t t = 1; t < static_cast<std::size_t>(n_threads_); ++t) {
      bad |= bad_[t * n_rows + r] != 0;
      const TopToken* other = top_.data() + (t * n_rows + r) * top_k;
      for (std::size_t i = 0; i < top_k && other[i].token >= 0; ++i) insert(top, other[i]);
    }
    if (bad) std::fill_n(top, top_k, TopToken{});
    std::copy_n(top, top_k, task_.top + r * top_k);
    if (task_.log_sum_exp == nullptr) continue;
    const float* maxima = group_max_.data() + r * static_cast<std::size_t>(n_groups_);
    const float* sums = group_sum_.data() + r * static_cast<std::size_t>(n_groups_);
    double sum = 0.0;
    for (std::int64_t g = 0; g < n_groups_; ++g) {
      if (sums[g] > 0.0F) {
        sum += static_cast<double>(sums[g]) *
               std::exp(static_cast<double>(maxima[g]) - static_cast<double>(top[0].logit));
      }
    }
    task_.log_sum_exp[r] =
        top[0].token < 0 ? std::numeric_limits<float>::quiet_NaN()
                         : static_cast<float>(static_cast<double>(top[0].logit) + std::log(sum));
  }
}

}  // namespace specdec
