#include "cli/chat_flags.h"

#include "cli/interrupt.h"
#include "cli/options.h"

namespace specdec::cli {

bool ChatFlags::wanted() const {
  return enabled || messages || !chat_template.empty() || !template_file.empty() ||
         !system.empty() || !tools_file.empty() || !arguments.empty();
}

void add_chat_switches(ArgParser& parser, ChatFlags& flags) {
  parser.add(opt::kPromptChat, &flags.enabled);
  parser.add(opt::kPromptMessages, &flags.messages);
}

void add_chat_flags(ArgParser& parser, ChatFlags& flags) {
  parser.add(opt::kPromptChatTemplate, &flags.chat_template);
  parser.add(opt::kPromptTemplateFile, &flags.template_file);
  parser.add(opt::kPromptSystem, &flags.system);
  parser.add(opt::kPromptToolsFile, &flags.tools_file);
  parser.add(opt::kPromptArguments, &flags.arguments);
}

ChatOptions chat_options(const ChatFlags& flags) {
  if (!flags.chat_template.empty() && !flags.template_file.empty()) {
    throw UsageError("give either --chat-template or --chat-template-file, not both");
  }
  ChatOptions options;
  options.chat_template =
      flags.template_file.empty() ? flags.chat_template : read_file(flags.template_file);
  if (!flags.template_file.empty() && options.chat_template.find('{') == std::string::npos) {
    throw UsageError("--chat-template-file: " + quoted(flags.template_file) +
                     " holds no jinja template: there is no brace in it");
  }
  if (!flags.tools_file.empty()) options.tools_json = read_file(flags.tools_file);
  options.arguments_json = flags.arguments;
  options.should_cancel = interrupted;
  return options;
}

ChatPrompt chat_prompt(const GgufFile& file, const Tokenizer& tokenizer, const ChatFlags& flags,
                       const std::string& prompt) {
  if (flags.messages && !flags.system.empty()) {
    throw UsageError("--system does not go with --messages: put it into the conversation");
  }
  std::vector<ChatMessage> messages;
  if (!flags.system.empty()) messages.push_back({"system", flags.system});
  messages.push_back({"user", prompt});
  return make_chat_prompt(file, tokenizer, flags.messages ? prompt : messages_json(messages),
                          chat_options(flags));
}

}  // namespace specdec::cli
