// Commands of a chat that change how answers are made: sampling, drafters, what is shown beside.
#pragma once

#include <string>
#include <vector>

#include "cli/chat_session.h"

namespace specdec::cli {

// Each takes what stands behind its name. They throw UsageError, and nothing has changed.
void set_setting(ChatSession& chat, const std::string& argument);         // /set
void set_length(ChatSession& chat, const std::string& argument);          // /length
void set_processor(ChatSession& chat, const std::string& argument);       // /processor
void toggle_speculative(ChatSession& chat, const std::string& argument);  // /speculative
void set_drafter(ChatSession& chat, const std::string& argument);         // /drafter
void set_ngram(ChatSession& chat, const std::string& argument);           // /ngram
void set_gamma(ChatSession& chat, const std::string& argument);           // /gamma
void set_top_k_filler(ChatSession& chat, const std::string& argument);    // /top_k_filler
void toggle_cache(ChatSession& chat, const std::string& argument);        // /cache
void toggle_target(ChatSession& chat, const std::string& argument);       // /target
void toggle_reset(ChatSession& chat, const std::string& argument);        // /reset_in_between
void toggle_debug(ChatSession& chat, const std::string& argument);        // /debug

// What may stand behind a command: "" for one that takes no word of a list.
[[nodiscard]] std::vector<std::string> words_after(const std::string& command);

}  // namespace specdec::cli
