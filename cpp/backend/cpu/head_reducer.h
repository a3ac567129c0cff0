// What a head's logits come down to, gathered by several threads group by group.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/ops.h"

namespace specdec {

inline constexpr int kHeadGroup = 128;  // logits of a row reduced at a time

// The result does not depend on which thread gets which group: the order of tokens is total, and
// exponentials are summed group by group.
class HeadReducer {
 public:
  HeadReducer(const HeadTask& task, int n_threads);

  [[nodiscard]] std::int64_t n_groups() const { return n_groups_; }
  [[nodiscard]] int n_blocks(std::int64_t group) const {
    return static_cast<int>(group + 1 < n_groups_ ? kBlocks : n_blocks_ - group * kBlocks);
  }
  [[nodiscard]] std::int64_t block(std::int64_t group, int i) const {
    const std::int64_t at = group * kBlocks + i;
    return task_.blocks.empty() ? at : task_.blocks[static_cast<std::size_t>(at)];
  }

  // logits: [n_rows, kHeadGroup], the group's blocks one after the other; what lies behind the last
  // token is overwritten.
  void add(int thread, std::int64_t group, float* logits, const OpsKernels& ops);
  // Writes the task's results.
  void finish();

 private:
  static constexpr std::int64_t kBlocks = kHeadGroup / kHeadBlock;
  void insert(TopToken* top, TopToken candidate) const;

  const HeadTask& task_;
  std::int64_t n_blocks_;
  std::int64_t n_groups_;
  int n_threads_;
  std::vector<TopToken> top_;     // [n_threads, n_rows, top_k]
  std::vector<char> bad_;         // [n_threads, n_rows]: a logit was NaN or +infinity
  std::vector<float> group_max_;  // [n_rows, n_groups], only for log_sum_exp
  std::vector<float> group_sum_;
};

}  // namespace specdec
