#include "engine/chat_prompt.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "chat_template/formats.h"
#include "chat_template/render.h"
#include "engine/loaded_model.h"
#include "gguf/reader.h"

namespace specdec {
namespace {

constexpr std::string_view kTemplateKey = "tokenizer.chat_template";
constexpr std::string_view kToolUse = "tool_use";

// Texts of the file's special tokens under the names that templates know. Those that the file
// lacks are undefined.
std::vector<std::pair<std::string, std::string>> special_tokens(const GgufFile& file,
                                                                const Tokenizer& tokenizer) {
  struct Name {
    const char* variable;
    const char* key;  // tokenizer.ggml.<key>_token_id
  };
  constexpr Name kNames[] = {{"bos_token", "bos"},     {"eos_token", "eos"},
                             {"unk_token", "unknown"}, {"sep_token", "seperator"},
                             {"pad_token", "padding"}, {"cls_token", "cls"},
                             {"mask_token", "mask"}};
  std::vector<std::pair<std::string, std::string>> found;
  for (const auto& [variable, key] : kNames) {
    std::optional<TokenId> id;
    const std::string_view name = key;
    if (name == "bos") {
      id = tokenizer.bos_id();
    } else if (name == "eos") {
      id = tokenizer.eos_id();
    } else if (name == "unknown") {
      id = tokenizer.unknown_id();
    } else if (name == "padding") {
      id = tokenizer.padding_id();
    } else {
      const std::string full = "tokenizer.ggml." + std::string(name) + "_token_id";
      if (file.find(full) != nullptr) {
        const std::int64_t given = file.get_i64(full, -1);
        if (given >= 0 && given < tokenizer.n_tokens()) id = static_cast<TokenId>(given);
      }
    }
    if (id) found.emplace_back(variable, std::string(tokenizer.token_text(*id)));
  }
  return found;
}

}  // namespace

std::string messages_json(const std::vector<ChatMessage>& messages) {
  std::string json = "[";
  for (const ChatMessage& message : messages) {
    if (json.size() > 1) json += ',';
    json += R"({"role":)" + chat::json_text(message.role) + R"(,"content":)" +
            chat::json_text(message.content) + '}';
  }
  return json + ']';
}

std::string ChatPrompt::text() const {
  std::string all;
  for (const ChatPiece& piece : pieces) all += piece.text;
  return all;
}

std::vector<std::pair<std::string, std::string>> chat_templates(const GgufFile& file) {
  std::vector<std::pair<std::string, std::string>> found;
  for (const GgufEntry& entry : file.entries()) {
    std::string_view key = entry.key;
    if (!key.starts_with(kTemplateKey) || entry.value.type() != GgufType::kString) continue;
    key.remove_prefix(kTemplateKey.size());
    if (!key.empty() && !key.starts_with('.')) continue;
    if (!key.empty()) key.remove_prefix(1);
    if (entry.value.as_string().empty()) continue;
    found.emplace_back(std::string(key), std::string(entry.value.as_string()));
  }
  return found;
}

std::string choose_chat_template(const GgufFile& file, const ChatOptions& options) {
  const auto own = chat_templates(file);
  const auto find = [&](std::string_view name) -> const std::string* {
    const auto at = std::find_if(own.begin(), own.end(),
                                 [&](const auto& entry) { return entry.first == name; });
    return at == own.end() ? nullptr : &at->second;
  };
  if (!options.chat_template.empty()) {
    if (const std::string* source = find(options.chat_template)) return *source;
    const std::string_view format = chat::find_named_format(options.chat_template);
    if (!format.empty()) return std::string(format);
    if (options.chat_template.find('{') != std::string::npos) return options.chat_template;
    std::string names;
    for (const chat::NamedFormat& known : chat::named_formats()) {
      names += (names.empty() ? "" : ", ") + std::string(known.name);
    }
    for (const auto& [name, source] : own) {
      if (!name.empty()) names += ", " + printable(name, 60);
    }
    throw_invalid("'" + printable(options.chat_template, 60) +
                  "' is no chat template: expected one of " + names +
                  ", or a jinja template, which has braces");
  }
  const std::string* source = options.tools_json.empty() ? nullptr : find(kToolUse);
  if (source == nullptr) source = find("");
  if (source == nullptr) {
    throw chat::TemplateError(
        chat::Problem::kMissing,
        printable(file.path(), 400) +
            ": the model file has no chat template; name one (--chat-template chatml, "
            "template=\"chatml\"), or give the prompt as it is (generate)");
  }
  return *source;
}

ChatPrompt make_chat_prompt(const GgufFile& file, const Tokenizer& tokenizer,
                            std::string_view messages, const ChatOptions& options) {
  chat::ChatInput input;
  input.source = choose_chat_template(file, options);
  input.messages_json = messages;
  input.tools_json = options.tools_json;
  input.arguments_json = options.arguments_json;
  input.add_generation_prompt = options.add_generation_prompt;
  input.tokens = special_tokens(file, tokenizer);
  if (!input.tools_json.empty() && input.source.find("tools") == std::string::npos) {
    log_message(LogLevel::kWarning,
                "the chat template does not mention tools: the model will not see those given");
  }
  chat::RenderOptions render_options;
  render_options.should_cancel = options.should_cancel;
  const chat::Rendered rendered = chat::render_chat(input, render_options);
  ChatPrompt prompt;
  for (const chat::RenderedPiece& piece : rendered.pieces) {
    prompt.pieces.push_back({piece.text, piece.from_template});
  }
  EncodeOptions encode_options;
  encode_options.add_bos = false;
  encode_options.poll = [&options] {
    if (options.should_cancel && options.should_cancel())
      throw Error(ErrorCode::kCancelled, "cancelled by the caller");
  };
  prompt.ids = tokenizer.encode_chat(prompt.pieces, encode_options);
  const std::optional<TokenId> bos = tokenizer.bos_id();
  const bool written = bos && !prompt.ids.empty() && prompt.ids[0] == *bos;
  if (tokenizer.add_bos() && bos && !written) prompt.ids.insert(prompt.ids.begin(), *bos);
  return prompt;
}

Conversation::Conversation(std::shared_ptr<const LoadedModel> model, ChatOptions options)
    : model_(std::move(model)), options_(std::move(options)) {
  (void)choose_chat_template(model_->file(), options_);
}

bool Conversation::has_system() const noexcept {
  return !messages_.empty() && messages_[0].role == "system";
}

void Conversation::add(std::string role, std::string content) {
  messages_.push_back({std::move(role), std::move(content)});
}

void Conversation::set_system(std::string content) {
  if (has_system()) messages_.erase(messages_.begin());
  if (!content.empty()) messages_.insert(messages_.begin(), {"system", std::move(content)});
}

void Conversation::remove_last() {
  if (messages_.size() > (has_system() ? 1U : 0U)) messages_.pop_back();
}

bool Conversation::drop_oldest_turn() {
  const std::ptrdiff_t first = has_system() ? 1 : 0;
  const auto is_user = [](const ChatMessage& message) { return message.role == "user"; };
  const auto begin = messages_.begin() + first;
  const auto next =
      begin == messages_.end() ? begin : std::find_if(begin + 1, messages_.end(), is_user);
  if (next == messages_.end()) return false;
  messages_.erase(begin, next);
  return true;
}

void Conversation::clear() { messages_.resize(has_system() ? 1 : 0); }

ChatPrompt Conversation::prompt() const {
  return make_chat_prompt(model_->file(), model_->tokenizer(), messages_json(messages_), options_);
}

}  // namespace specdec
