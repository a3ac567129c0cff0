// Renders a chat template within bounds: the layer's public interface.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "chat_template/budget.h"

namespace specdec::chat {

// A part of the text. A control token is one only where all of its characters are the template's.
struct RenderedPiece {
  std::string text;
  bool from_template = true;  // false: from a message, a tool or an argument
};

struct Rendered {
  std::vector<RenderedPiece> pieces;  // neighbours differ in from_template
  std::uint64_t work = 0;             // units used, see Limits
  std::size_t memory_bytes = 0;       // the most that values held at a time
  bool joined_parts = false;          // lists of text parts were handed over as one text each

  [[nodiscard]] std::string text() const;
};

struct RenderOptions {
  Limits limits;  // besides what the size of the input adds
  // Local time is made of these seconds since 1970; empty: the system's clock.
  std::function<std::int64_t()> clock;
  // Asked every few milliseconds; true ends the rendering with Error(kCancelled).
  std::function<bool()> should_cancel;
};

// A template with any variables: a JSON object. `callers`: they are the caller's.
[[nodiscard]] Rendered render_template(std::string_view source, std::string_view variables_json,
                                       bool callers, const RenderOptions& options = {});

struct ChatInput {
  std::string source;          // of the template
  std::string messages_json;   // a list of objects with "role" and "content"
  std::string tools_json;      // a list of objects; "": none
  std::string arguments_json;  // an object: further variables; "": none
  bool add_generation_prompt = true;
  std::vector<std::pair<std::string, std::string>> tokens;  // "bos_token" -> "<s>"
};

// A text as JSON, in quotes; bytes that are not UTF-8 stay as they are.
[[nodiscard]] std::string json_text(std::string_view text);

// A conversation as transformers' apply_chat_template() hands it to a template: keys that are null
// are left out, reasoning is found under each of its names. Content that is a list of text parts
// becomes one text where the template has no notion of parts. Throws TemplateError, or
// Error(kInvalidArgument) for messages, tools and arguments that are not what they should be.
[[nodiscard]] Rendered render_chat(const ChatInput& input, const RenderOptions& options = {});

}  // namespace specdec::chat
