#include "cli/chat_prompt.h"

#include "base/error.h"

namespace specdec::cli {

void add_chat_flags(ArgParser& parser, ChatFlags& flags) {
  parser.add(opt::kPromptChatFormat, &flags.format);
  parser.add(opt::kPromptSystem, &flags.system);
}

ChatFormat choose_chat_format(const LoadedModel& model, const ChatFlags& flags) {
  if (!flags.format.empty()) return find_chat_format(flags.format).value();
  const std::string& text = model.chat_template();
  if (const auto format = detect_chat_format(text)) return *format;
  throw Error(
      ErrorCode::kUnsupported,
      printable(model.info().path, 400) +
          (text.empty() ? " has no chat template" : " has a chat template that is not built in") +
          "; name a format with --chat-format, or use the Python package");
}

std::vector<PromptPiece> chat_prompt(const LoadedModel& model, const ChatFlags& flags,
                                     const std::vector<ChatMessage>& messages) {
  std::vector<ChatMessage> all;
  if (!flags.system.empty()) all.push_back({"system", flags.system});
  all.insert(all.end(), messages.begin(), messages.end());
  const Tokenizer& tokenizer = model.tokenizer();
  const std::string eos = tokenizer.eos_id()
                              ? std::string(tokenizer.token_text(*tokenizer.eos_id()))
                              : std::string("</s>");
  return apply_chat_format(choose_chat_format(model, flags), all, true, eos);
}

}  // namespace specdec::cli
