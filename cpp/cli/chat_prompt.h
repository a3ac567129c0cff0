// Conversations in a model's chat format, without a template engine.
#pragma once

#include <string>
#include <vector>

#include "cli/args.h"
#include "engine/loaded_model.h"
#include "tokenizer/chat_format.h"

namespace specdec::cli {

struct ChatFlags {
  bool enabled = false;  // --chat
  std::string format;    // "": what the file's template looks like
  std::string system;
};

// --chat-format and --system
void add_chat_flags(ArgParser& parser, ChatFlags& flags);

// The named format, or the file's own; Error(kUnsupported) when that is none of the built-in ones.
[[nodiscard]] ChatFormat choose_chat_format(const LoadedModel& model, const ChatFlags& flags);

// The system message, if any, then `messages`, then the beginning of the answer.
[[nodiscard]] std::vector<PromptPiece> chat_prompt(const LoadedModel& model, const ChatFlags& flags,
                                                   const std::vector<ChatMessage>& messages);

}  // namespace specdec::cli
