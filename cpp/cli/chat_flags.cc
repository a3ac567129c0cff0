#include "cli/chat_flags.h"

#include "cli/interrupt.h"
#include "cli/options.h"

namespace specdec::cli {

bool ChatFlags::wanted() const {
  return enabled || messages || !chat_template.empty() || !template_file.empty() ||
         !system.empty() || !tools_file.empty() || !arguments.empty();
}

void add_chat_switches(ArgParser& parser, ChatFlags& flags) {
  parser.flag("--chat", &flags.enabled, "Put the prompt into the model's chat format.");
  parser.flag("--messages", &flags.messages,
              "The prompt is a conversation: a JSON list of objects with role and content.");
}

void add_chat_flags(ArgParser& parser, ChatFlags& flags) {
  parser.text("--chat-template --chat-format", "NAME", &flags.chat_template,
              "Chat template: chatml, llama2, llama3, zephyr, raw, one that the file names, or a "
              "jinja template itself (default: the file's own).");
  parser.text("--chat-template-file", "FILE", &flags.template_file,
              "A file with the jinja template to use.");
  parser.text("-sys --system", "TEXT", &flags.system, "The system message of a chat.");
  parser.text("--tools", "FILE", &flags.tools_file,
              "A JSON list of descriptions of tools, for templates that know them.");
  parser.text("--chat-template-kwargs", "JSON", &flags.arguments,
              "Further variables of the template, e.g. '{\"enable_thinking\": false}'.");
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
