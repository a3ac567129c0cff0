#include "engine/perplexity.h"

#include <chrono>

#include "base/error.h"
#include "base/log.h"
#include "decode/token_cache.h"
#include "kv/kv_cache.h"
#include "model/perplexity.h"
#include "model/runner.h"
#include "tokenizer/tokenizer.h"

namespace specdec {

TextPerplexity measure_text_perplexity(const LoadedModel& model, const std::string& text,
                                       const TextPerplexityOptions& options) {
  const std::string warning = context_warning(model.model().config(), options.n_ctx);
  if (!warning.empty()) log_message(LogLevel::kWarning, warning);
  const KvType kv_type = options.kv_type.empty() ? model.kv_type() : parse_kv_type(options.kv_type);
  const Tokenizer& tokenizer = model.tokenizer();
  EncodeOptions encode;
  encode.poll = [&options] { throw_if_cancelled(options.cancel); };
  const std::vector<TokenId> tokens = tokenizer.encode(text, encode);

  PerplexityOptions measure;
  measure.n_ctx = options.n_ctx;
  measure.max_windows = options.n_chunks < 0 ? 0 : options.n_chunks;
  if (tokenizer.add_bos()) measure.bos = tokenizer.bos_id().value_or(-1);
  measure.cancel = options.cancel;
  measure.on_progress = [&options](const PerplexityProgress& progress) {
    if (options.on_progress) {
      options.on_progress(progress.n_windows_done, progress.n_windows, progress.perplexity);
    }
  };
  KvCache cache(KvArena::create({.device = model.gpu()}), model.model().kv_shape(kv_type),
                options.n_ctx);
  Runner runner(model.model());
  const auto start = std::chrono::steady_clock::now();
  const PerplexityResult measured = measure_perplexity(runner, cache, tokens, measure);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;

  TextPerplexity result;
  result.perplexity = measured.perplexity;
  result.mean_nll = measured.mean_nll;
  // First order: d exp(x) = exp(x) dx.
  result.standard_error = measured.standard_error * measured.perplexity;
  result.n_tokens_scored = measured.n_scored;
  result.n_chunks = measured.n_windows;
  result.n_tokens_read = static_cast<std::int64_t>(measured.n_windows) * options.n_ctx;
  result.total_ms = elapsed.count() * 1000;
  result.tokens_per_second = static_cast<double>(result.n_tokens_read) / elapsed.count();
  return result;
}

}  // namespace specdec
