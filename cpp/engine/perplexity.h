// Perplexity of a text: a yardstick for whether a model was read correctly.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "engine/loaded_model.h"

namespace specdec {

struct TextPerplexityOptions {
  int n_ctx = 512;      // window length; windows do not overlap
  int n_chunks = -1;    // windows to score; -1: all
  std::string kv_type;  // "": the model's
  std::function<void(int done, int total, double perplexity)> on_progress;
  const std::atomic<bool>* cancel = nullptr;  // true ends it with Error(kCancelled)
};

struct TextPerplexity {
  double perplexity = 0;
  double mean_nll = 0;        // nats per token
  double standard_error = 0;  // of the perplexity
  std::int64_t n_tokens_scored = 0;
  std::int64_t n_tokens_read = 0;
  int n_chunks = 0;
  double total_ms = 0;
  double tokens_per_second = 0;  // read
};

// Special tokens in the text are not parsed. In each window the first token becomes the
// beginning-of-sequence token if the model adds one, and positions n_ctx/2 .. n_ctx-2 are scored on
// the token that follows. Error(kInvalidArgument) when the text is shorter than one window.
[[nodiscard]] TextPerplexity measure_text_perplexity(const LoadedModel& model,
                                                     const std::string& text,
                                                     const TextPerplexityOptions& options);

}  // namespace specdec
