// --prompt-cache: what was read of a prompt, kept in a file.
#pragma once

#include <string>
#include <vector>

#include "cli/args.h"
#include "decode/stats.h"
#include "engine/chat_prompt.h"
#include "engine/session.h"

namespace specdec::cli {

struct PromptCacheFlags {
  std::string file;  // "": none
  bool read_only = false;
};

void add_prompt_cache_flags(ArgParser& parser, PromptCacheFlags& flags);
// Throws UsageError for flags that contradict each other.
void check_prompt_cache_flags(const PromptCacheFlags& flags, bool use_cache);

// Lets the session begin with what the file holds, if there is one.
void load_prompt_cache(Session& session, const PromptCacheFlags& flags);
// Where there is a file that may be written, reads the prompt of a request and writes the file,
// unless that held all of it. Returns the figures of it, to be added to those of the request
// itself, which then finds its prompt in the cache.
[[nodiscard]] DecodeStats keep_prompt(Session& session, const PromptCacheFlags& flags,
                                      const GenerateRequest& request);
void add_reading(const DecodeStats& reading, GenerateResult& result);

// The beginning of a conversation's prompt that is the same whatever the last question is.
[[nodiscard]] std::vector<TokenId> fixed_beginning(const Conversation& conversation);

}  // namespace specdec::cli
