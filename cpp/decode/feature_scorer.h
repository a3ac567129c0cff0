// A head that drafts for a target, together with one cache, as its drafter sees it. The engine
// implements it over a Runner and a KvCache; tests over a toy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "decode/token_scorer.h"

namespace specdec {

// Row P of its cache is the token at P + 1 beside the feature at P: what the target said there, or,
// while drafting, what the head itself said. Batches carry features as Batch::hidden; positions
// count from the cache's first row. Results are of the target's tokens; those that the head does
// not know are impossible.
class FeatureScorer : public TokenScorer {
 public:
  // What it reads of the target, as Batch::taps, and the floats of one row of them.
  [[nodiscard]] virtual std::span<const std::int32_t> target_taps() const = 0;
  [[nodiscard]] virtual std::size_t n_tapped() const = 0;
  [[nodiscard]] virtual std::size_t n_features() const = 0;
  // taps [n_rows, n_tapped()] -> features [n_rows, n_features()].
  virtual void fuse(std::span<const float> taps, int n_rows, std::span<float> features) = 0;
  // Of a row of the last forward that was asked for an output: the feature of the next one.
  [[nodiscard]] virtual std::span<const float> feature(int row) const = 0;
};

}  // namespace specdec
