#include "cli/chat_comparison.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/error.h"
#include "cli/terminal.h"

namespace specdec::cli {
namespace {

std::string fixed(double value, const char* format) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

}  // namespace

AloneAnswer::AloneAnswer(std::shared_ptr<const LoadedModel> model, const SessionOptions& options)
    : model_(std::move(model)), options_(options) {
  options_.drafters.clear();
  options_.draft.reset();
  options_.memory.reset();  // an answer without drafts needs none, and is not to be one for others
  options_.adaptive = false;
}

GenerateResult AloneAnswer::generate(const GenerateRequest& request, Session& beside) {
  GenerateRequest alone = request;
  alone.on_chunk = nullptr;
  alone.on_progress = nullptr;
  alone.on_round = nullptr;
  options_.n_ctx = beside.n_ctx();
  if (session_ && session_->n_ctx() != options_.n_ctx) session_.reset();
  bool one_at_a_time = false;
  if (!session_) {
    try {
      session_.emplace(model_, options_);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kResource) throw;
      beside.reset();
      session_.emplace(model_, options_);
      one_at_a_time = true;
    }
  }
  try {
    GenerateResult result = session_->generate(alone);
    if (one_at_a_time) session_.reset();
    return result;
  } catch (...) {
    session_.reset();
    throw;
  }
}

void print_comparison(const GenerateResult& speculative, const GenerateResult& alone,
                      const std::string& excuse) {
  const DecodeStats& stats = speculative.stats;
  if (const std::optional<double> rate = stats.acceptance_rate()) {
    print_note("acceptance: " + fixed(100 * *rate, "%.1f %%") + " (" +
               std::to_string(stats.accepted) + " of " + std::to_string(stats.drafted) +
               " drafted tokens)");
  } else {
    print_note("acceptance: nothing was drafted");
  }
  const std::vector<TokenId>&got = speculative.token_ids, &expected = alone.token_ids;
  if (got == expected) {
    print_note("tokens: the same " + std::to_string(got.size()));
  } else {
    const auto at =
        std::mismatch(got.begin(), got.end(), expected.begin(), expected.end()).first - got.begin();
    const std::string difference = "others from position " + std::to_string(at) + " on";
    if (excuse.empty()) {
      print_warning("tokens: " + difference + ", which is a bug; please report it");
    } else {
      print_note("tokens: " + difference + "; " + excuse);
    }
  }
  const std::optional<double> fast = stats.tokens_per_second();
  const std::optional<double> plain = alone.stats.tokens_per_second();
  if (!fast || !plain) return;
  print_note("Throughput increase: " + fixed(100 * (*fast / *plain - 1), "%+.1f %%") + " (" +
             fixed(*fast, "%.1f") + " tokens/s, the target alone " + fixed(*plain, "%.1f") + ")");
}

}  // namespace specdec::cli
