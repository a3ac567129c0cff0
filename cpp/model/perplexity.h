// Perplexity of a text, the way llama.cpp's tool measures it: windows without overlap, the second
// half of each scored.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>

#include "model/runner.h"

namespace specdec {

struct PerplexityProgress {
  int n_windows_done = 0;
  int n_windows = 0;
  double perplexity = 0;  // so far
};

struct PerplexityOptions {
  int n_ctx = 512;      // tokens per window, at least 4
  int max_windows = 0;  // 0: all that fit
  TokenId bos = -1;     // replaces the first token of each window; -1: do not (a model without BOS)
  std::function<void(const PerplexityProgress&)> on_progress = {};
  const std::atomic<bool>* cancel = nullptr;
};

struct PerplexityResult {
  double perplexity = 0;
  double mean_nll = 0;        // natural log
  double standard_error = 0;  // of mean_nll
  std::int64_t n_scored = 0;
  int n_windows = 0;
};

// Tokens n_ctx/2 .. n_ctx-2 of each window predict the next one. `cache` is emptied before each
// window and left empty. Error(kInvalidArgument) when the text is shorter than one window.
[[nodiscard]] PerplexityResult measure_perplexity(Runner& runner, KvCache& cache,
                                                  std::span<const TokenId> tokens,
                                                  const PerplexityOptions& options = {});

}  // namespace specdec
