#include "tokenizer/chat_format.h"

#include <iterator>

#include "base/error.h"

namespace specdec {
namespace {

struct FormatName {
  ChatFormat format;
  std::string_view name;
};

constexpr FormatName kNames[] = {
    {ChatFormat::kChatMl, "chatml"}, {ChatFormat::kLlama2, "llama2"},
    {ChatFormat::kLlama3, "llama3"}, {ChatFormat::kZephyr, "zephyr"},
    {ChatFormat::kRaw, "raw"},
};

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpaces = " \t\n\v\f\r";
  const std::size_t first = text.find_first_not_of(kSpaces);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpaces) - first + 1);
}

class Pieces {
 public:
  // A part of the format itself.
  Pieces& mark(std::string_view text) { return add(text, true); }
  // Text of the conversation.
  Pieces& content(std::string_view text) { return add(text, false); }
  [[nodiscard]] std::vector<ChatPiece> take() { return std::move(pieces_); }

 private:
  Pieces& add(std::string_view text, bool parse_special) {
    if (text.empty()) return *this;
    if (!pieces_.empty() && pieces_.back().parse_special == parse_special) {
      pieces_.back().text += text;
    } else {
      pieces_.push_back({std::string(text), parse_special});
    }
    return *this;
  }

  std::vector<ChatPiece> pieces_;
};

void apply_llama2(std::span<const ChatMessage> messages, std::string_view eos_text, Pieces& out) {
  std::string system;
  bool answered = false;  // BOS stands before every turn; the first one comes from the tokenizer
  for (const ChatMessage& message : messages) {
    if (message.role == "system") {
      system += trim(message.content);
    } else if (message.role == "user") {
      if (answered) out.mark("<s>");
      out.mark("[INST] ");
      if (!system.empty()) out.mark("<<SYS>>\n").content(system).mark("\n<</SYS>>\n\n");
      out.content(trim(message.content)).mark(" [/INST]");
      system.clear();
      answered = false;
    } else if (message.role == "assistant") {
      out.mark(" ").content(trim(message.content)).mark(" ").mark(eos_text);
      answered = true;
    } else {
      throw_invalid("the Llama-2 chat format has no role '" + printable(message.role) +
                    "', only system, user and assistant");
    }
  }
  if (!system.empty()) {
    throw_invalid("the Llama-2 chat format needs a user message behind the system message");
  }
}

}  // namespace

std::string_view chat_format_name(ChatFormat format) {
  for (const FormatName& entry : kNames) {
    if (entry.format == format) return entry.name;
  }
  return "";
}

std::optional<ChatFormat> find_chat_format(std::string_view name) {
  for (const FormatName& entry : kNames) {
    if (entry.name == name) return entry.format;
  }
  return std::nullopt;
}

std::optional<ChatFormat> detect_chat_format(std::string_view chat_template) {
  const auto has = [&](std::string_view text) {
    return chat_template.find(text) != std::string_view::npos;
  };
  if (has("<|im_start|>")) return ChatFormat::kChatMl;
  if (has("<|start_header_id|>")) return ChatFormat::kLlama3;
  if (has("[INST]") && has("<<SYS>>")) return ChatFormat::kLlama2;
  if (has("<|user|>") && has("<|assistant|>") && has("eos_token")) return ChatFormat::kZephyr;
  return std::nullopt;
}

std::vector<ChatPiece> apply_chat_format(ChatFormat format, std::span<const ChatMessage> messages,
                                         bool add_generation_prompt, std::string_view eos_text) {
  Pieces out;
  if (format == ChatFormat::kLlama2) {
    apply_llama2(messages, eos_text, out);
    return out.take();
  }
  for (const auto& [role, content] : messages) {
    switch (format) {
      case ChatFormat::kChatMl:
        out.mark("<|im_start|>").content(role).mark("\n").content(content).mark("<|im_end|>\n");
        break;
      case ChatFormat::kLlama3:
        out.mark("<|start_header_id|>").content(role).mark("<|end_header_id|>\n\n");
        out.content(trim(content)).mark("<|eot_id|>");
        break;
      case ChatFormat::kZephyr:
        if (role != "system" && role != "user" && role != "assistant") {
          throw_invalid("the Zephyr chat format has no role '" + printable(role) +
                        "', only system, user and assistant");
        }
        out.mark("<|" + role + "|>\n").content(content).mark(eos_text).mark("\n");
        break;
      case ChatFormat::kLlama2:
      case ChatFormat::kRaw:
        out.content(content);
        break;
    }
  }
  if (!add_generation_prompt) return out.take();
  if (format == ChatFormat::kChatMl) out.mark("<|im_start|>assistant\n");
  if (format == ChatFormat::kLlama3) out.mark("<|start_header_id|>assistant<|end_header_id|>\n\n");
  if (format == ChatFormat::kZephyr) out.mark("<|assistant|>\n");
  return out.take();
}

}  // namespace specdec
