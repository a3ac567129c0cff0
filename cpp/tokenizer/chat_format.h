// The chat formats that are built in, for programs without a template engine.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace specdec {

enum class ChatFormat { kChatMl, kLlama2, kLlama3, kZephyr, kRaw };

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

// "chatml", "llama2", "llama3", "zephyr", "raw"
[[nodiscard]] std::string_view chat_format_name(ChatFormat format);
[[nodiscard]] std::optional<ChatFormat> find_chat_format(std::string_view name);

// The format that a model's own Jinja template writes, recognised by its marks; nothing when it is
// none of the above.
[[nodiscard]] std::optional<ChatFormat> detect_chat_format(std::string_view chat_template);

// The conversation as text for Tokenizer::encode_chat(), which adds BOS where the model wants it.
// Control tokens are recognised only in the format's own parts, never in roles and contents. With
// `add_generation_prompt` it ends where the assistant's answer begins. `eos_text` ends a turn in
// the Llama-2 and Zephyr formats. Throws Error(kInvalidArgument) for a role the format cannot
// express.
[[nodiscard]] std::vector<ChatPiece> apply_chat_format(ChatFormat format,
                                                       std::span<const ChatMessage> messages,
                                                       bool add_generation_prompt,
                                                       std::string_view eos_text = "</s>");

}  // namespace specdec
