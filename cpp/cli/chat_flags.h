// What the command line says about conversations.
#pragma once

#include <string>

#include "cli/args.h"
#include "engine/chat_prompt.h"

namespace specdec::cli {

struct ChatFlags {
  bool enabled = false;   // --chat
  bool messages = false;  // --messages: the prompt is a conversation
  std::string chat_template, template_file;
  std::string system;
  std::string tools_file;
  std::string arguments;  // JSON

  // Any of them was given.
  [[nodiscard]] bool wanted() const;
};

// --chat and --messages, for commands that take a prompt.
void add_chat_switches(ArgParser& parser, ChatFlags& flags);
// --chat-template and what else shapes a conversation.
void add_chat_flags(ArgParser& parser, ChatFlags& flags);

// Reads the files that the flags name.
[[nodiscard]] ChatOptions chat_options(const ChatFlags& flags);

// The prompt of one question, or of the conversation that `prompt` is.
[[nodiscard]] ChatPrompt chat_prompt(const GgufFile& file, const Tokenizer& tokenizer,
                                     const ChatFlags& flags, const std::string& prompt);

}  // namespace specdec::cli
