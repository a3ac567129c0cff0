#include "cli/prompt_cache.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "cli/interrupt.h"
#include "decode/token_cache.h"

namespace specdec::cli {

void add_prompt_cache_flags(ArgParser& parser, PromptCacheFlags& flags) {
  parser.add(opt::kPromptCache, &flags.file);
  parser.add(opt::kPromptCacheRo, &flags.read_only);
}

void check_prompt_cache_flags(const PromptCacheFlags& flags, bool use_cache) {
  if (flags.read_only && flags.file.empty())
    throw UsageError("--prompt-cache-ro needs --prompt-cache FILE");
  if (!flags.file.empty() && !use_cache)
    throw UsageError("--prompt-cache does not go with --no-cache, which keeps nothing");
}

void load_prompt_cache(Session& session, const PromptCacheFlags& flags) {
  if (flags.file.empty()) return;
  struct stat info{};
  const bool missing = ::stat(flags.file.c_str(), &info) != 0 && errno == ENOENT;
  if (missing && !flags.read_only) return;
  session.load(flags.file, [] { throw_if_cancelled(&interrupt_flag()); });
}

DecodeStats keep_prompt(Session& session, const PromptCacheFlags& flags,
                        const GenerateRequest& request) {
  if (flags.file.empty() || flags.read_only) return {};
  GenerateRequest reading = request;
  reading.max_tokens = 0;
  reading.on_chunk = nullptr;
  reading.on_round = nullptr;
  const GenerateResult result = session.generate(reading);
  // A prompt of one token leaves nothing to keep.
  const bool known = result.n_reused_tokens >= result.n_prompt_tokens - 1;
  if (result.finish_reason != "cancelled" && !known)
    session.save(flags.file, [] { throw_if_cancelled(&interrupt_flag()); });
  return result.stats;
}

void add_reading(const DecodeStats& reading, GenerateResult& result) {
  if (reading.prompt_tokens == 0) return;
  result.n_reused_tokens = static_cast<int>(reading.reused_prompt_tokens);
  result.stats.reused_prompt_tokens = reading.reused_prompt_tokens;
  result.stats.prompt_ms += reading.prompt_ms;
  result.stats.total_ms += reading.total_ms;
  if (result.stats.time_to_first_token_ms > 0)
    result.stats.time_to_first_token_ms += reading.total_ms;
}

std::vector<TokenId> fixed_beginning(const Conversation& conversation) {
  std::vector<TokenId> ids = conversation.prompt().ids;
  Conversation other = conversation;
  const std::string question = conversation.messages().back().content;
  other.remove_last();
  other.add("user", question.starts_with('a') ? "b" : "a");
  const std::vector<TokenId> others = other.prompt().ids;
  const auto [end, unused] = std::mismatch(ids.begin(), ids.end(), others.begin(), others.end());
  ids.erase(end, ids.end());
  return ids;
}

}  // namespace specdec::cli
