// From messages to the tokens of a prompt, by a model's own chat template.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/token.h"
#include "tokenizer/tokenizer.h"

namespace specdec {

class GgufFile;
class LoadedModel;

struct ChatOptions {
  // "": the file's own, and its `tool_use` one where tools are given; the name of another template
  // of the file; the name of a format (chatml, llama2, llama3, zephyr, raw); else a jinja template.
  std::string chat_template;
  std::string tools_json;      // a list of objects; "": none
  std::string arguments_json;  // an object: further variables of the template; "": none
  bool add_generation_prompt = true;
  std::function<bool()> should_cancel;  // asked every few milliseconds
};

struct ChatPrompt {
  std::vector<TokenId> ids;  // with BOS where the file or the template asks for it, never with two
  // The text; control tokens are recognised only in what the template wrote.
  std::vector<ChatPiece> pieces;
  [[nodiscard]] std::string text() const;
};

// Names and sources of the templates in a file; the default one is called "".
[[nodiscard]] std::vector<std::pair<std::string, std::string>> chat_templates(const GgufFile& file);

// The template that these options choose. chat::TemplateError(kMissing) where there is none.
[[nodiscard]] std::string choose_chat_template(const GgufFile& file, const ChatOptions& options);

// `messages_json`: a list of objects with "role" and "content". Throws chat::TemplateError where
// the template is missing, wrong, refuses the messages or exceeds its limits.
[[nodiscard]] ChatPrompt make_chat_prompt(const GgufFile& file, const Tokenizer& tokenizer,
                                          std::string_view messages_json,
                                          const ChatOptions& options);

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

[[nodiscard]] std::string messages_json(const std::vector<ChatMessage>& messages);

// What was said so far, and its prompt. A prompt begins as the one before wherever the template
// writes old messages alike, so a session reads only what is new.
class Conversation {
 public:
  // Throws where the file has no template and the options name none.
  Conversation(std::shared_ptr<const LoadedModel> model, ChatOptions options);

  void add(std::string role, std::string content);
  // Replaces or, with "", removes the system message at the beginning.
  void set_system(std::string content);
  // The last message goes; not the system message.
  void remove_last();
  // The oldest message behind the system message goes, and all up to the next one of the user.
  // False when only one of the user's is left.
  bool drop_oldest_turn();
  // All but the system message.
  void clear();

  [[nodiscard]] const std::vector<ChatMessage>& messages() const noexcept { return messages_; }
  [[nodiscard]] ChatPrompt prompt() const;

 private:
  [[nodiscard]] bool has_system() const noexcept;

  std::shared_ptr<const LoadedModel> model_;
  ChatOptions options_;
  std::vector<ChatMessage> messages_;
};

}  // namespace specdec
