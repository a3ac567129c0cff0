#include "chat_template/render.h"

#include <algorithm>
#include <ctime>
#include <initializer_list>

#include "chat_template/builtins.h"
#include "chat_template/check_names.h"
#include "chat_template/interpreter.h"
#include "chat_template/json_reader.h"
#include "chat_template/objects.h"
#include "chat_template/parser.h"

namespace specdec::chat {
namespace {

// What the size of the input adds to the limits, per byte.
constexpr std::uint64_t kWorkPerByte = 400;
constexpr std::uint64_t kMemoryPerByte = 48;

std::int64_t system_clock() { return static_cast<std::int64_t>(std::time(nullptr)); }

Limits scaled(const Limits& limits, std::size_t n_input_bytes) {
  Limits result = limits;
  result.work += kWorkPerByte * n_input_bytes;
  result.memory_bytes += kMemoryPerByte * n_input_bytes;
  return result;
}

std::string prefix_of(Problem problem) {
  switch (problem) {
    case Problem::kSyntax:
      return "the chat template is wrong: ";
    case Problem::kRefused:
      return "the chat template refuses these messages: ";
    case Problem::kFailed:
      return "the chat template failed: ";
    case Problem::kLimit:
      return "the chat template exceeds its limits: ";
    case Problem::kMissing:
      break;
  }
  return "";
}

// One rendering: the members go in the reverse order of their making.
class Rendering {
 public:
  Rendering(std::size_t n_input_bytes, const RenderOptions& options)
      : budget_(scaled(options.limits, n_input_bytes), options.should_cancel),
        interpreter_(budget_, names_, options.clock ? options.clock : system_clock) {
    for (const NamedBuiltin& function : global_functions()) {
      interpreter_.set_global(std::string(function.name), make_function(budget_, function.run));
    }
  }

  Budget& budget() noexcept { return budget_; }
  void set(const std::string& name, Value value) {
    interpreter_.set_global(name, std::move(value));
  }

  Rendered run(std::string_view source) {
    try {
      Parser parser(budget_, names_, source);
      body_ = parser.parse_template();
      check_names(body_);
      return pieces_of(interpreter_.run(body_));
    } catch (const TemplateError& error) {
      std::string message = prefix_of(error.problem()) + error.what();
      if (interpreter_.line() > 0 && error.problem() != Problem::kSyntax &&
          error.problem() != Problem::kRefused) {
        message += " (line " + std::to_string(interpreter_.line()) + ")";
      }
      throw TemplateError(error.problem(), message);
    }
  }

 private:
  Rendered pieces_of(const Text& text) {
    Rendered result;
    budget_.work(2 * text.size());
    for (std::size_t begin = 0; begin < text.size();) {
      const bool callers = is_callers(text[begin]);
      std::size_t end = begin + 1;
      while (end < text.size() && is_callers(text[end]) == callers) ++end;
      result.pieces.push_back({to_bytes(TextView(text).substr(begin, end - begin)), !callers});
      begin = end;
    }
    result.work = budget_.work_done();
    result.memory_bytes = budget_.highest_bytes();
    return result;
  }

  Budget budget_;
  Names names_;
  Body body_;
  Interpreter interpreter_;
};

// Words that templates put between marks ("<|user|>"): these are the template's vocabulary, whoever
// says them. Any other role is the caller's text.
bool is_known_role(TextView role) {
  for (const std::string_view known :
       {"assistant", "context", "developer", "document", "documents", "environment", "function",
        "ipython", "model", "observation", "system", "tool", "tool_call", "tool_response", "tools",
        "user"}) {
    if (equals_ascii(role, known)) return true;
  }
  return false;
}

// A list of {"type": "text", "text": ...} and nothing else.
bool is_text_parts(const Value& content) {
  if (!content.is(Kind::kList)) return false;
  return std::all_of(
      content.as_list().items.begin(), content.as_list().items.end(), [](const Value& part) {
        if (!part.is(Kind::kDict)) return false;
        const Value* type = part.as_dict().find_ascii("type");
        const Value* text = part.as_dict().find_ascii("text");
        return type != nullptr && type->is(Kind::kText) && equals_ascii(type->as_text(), "text") &&
               text != nullptr && text->is(Kind::kText);
      });
}

Value joined_parts(Budget& budget, const Value& content) {
  TextBuilder out(budget);
  for (const Value& part : content.as_list().items) {
    out.append(part.as_dict().find_ascii("text")->as_text());
  }
  return out.take();
}

// Messages as the template sees them.
class Conversation {
 public:
  Conversation(Budget& budget, bool join_parts) : budget_(budget), join_parts_(join_parts) {}

  Value read(std::string_view json) {
    const Value messages = read_json(budget_, json, kCallers, "messages");
    if (!messages.is(Kind::kList)) throw_invalid("messages must be a list");
    if (messages.as_list().items.empty()) {
      throw_invalid("messages is empty: give at least one message");
    }
    Values result;
    for (const Value& message : messages.as_list().items) {
      result.push_back(read_message(message, result.size()));
    }
    return Value::list(budget_, std::move(result));
  }

  [[nodiscard]] bool has_parts() const noexcept { return has_parts_; }
  [[nodiscard]] bool wrote_parts() const noexcept { return wrote_parts_; }

 private:
  Value read_message(const Value& message, std::size_t index) {
    const std::string name = "messages[" + std::to_string(index) + "]";
    if (!message.is(Kind::kDict)) throw_invalid(name + " must be an object with 'role'");
    const DictData& given = message.as_dict();
    const Value* role = given.find_ascii("role");
    if (role == nullptr || !role->is(Kind::kText)) {
      throw_invalid(name + "['role'] must be a word such as 'user'");
    }
    const Value reasoning = first_of(given, {"reasoning_content", "thinking", "reasoning"});
    const Ref<DictData> result = make_heap<DictData>(budget_);
    if (!reasoning.is(Kind::kNone)) result->set(Value::ascii(budget_, "thinking"), reasoning);
    for (const DictData::Entry& entry : given.entries) {
      if (entry.value.is(Kind::kNone)) continue;
      const TextView key = entry.key.as_text();
      if (equals_ascii(key, "role") && is_known_role(role->as_text())) {
        result->set(entry.key, Value::ascii(budget_, to_bytes(role->as_text())));
      } else if (equals_ascii(key, "content") && entry.value.is(Kind::kList)) {
        result->set(entry.key, read_content(entry.value, name));
      } else {
        result->set(entry.key, entry.value);
      }
    }
    if (!reasoning.is(Kind::kNone)) {
      result->set(Value::ascii(budget_, "reasoning_content"), reasoning);
    }
    return Value::dict(result);
  }

  Value read_content(const Value& content, const std::string& name) {
    if (!is_text_parts(content)) {
      throw Error(ErrorCode::kUnsupported, name + "['content'] has a part that is not text");
    }
    has_parts_ = true;
    if (join_parts_) return joined_parts(budget_, content);
    content.list_data().written = &wrote_parts_;
    return content;
  }

  static Value first_of(const DictData& dict, std::initializer_list<const char*> names) {
    for (const char* name : names) {
      const Value* value = dict.find_ascii(name);
      if (value != nullptr && !value->is(Kind::kNone)) return *value;
    }
    return {};
  }

  Budget& budget_;
  bool join_parts_;
  bool has_parts_ = false, wrote_parts_ = false;
};

// With `join_parts` false, `usable` tells whether the template took the parts of contents as such.
Rendered render_once(const ChatInput& input, const RenderOptions& options, bool join_parts,
                     bool* usable) {
  const std::size_t n_bytes = input.source.size() + input.messages_json.size() +
                              input.tools_json.size() + input.arguments_json.size();
  Rendering rendering(n_bytes, options);
  Budget& budget = rendering.budget();
  Conversation conversation(budget, join_parts);
  Value messages = conversation.read(input.messages_json);
  Value tools;
  if (!input.tools_json.empty()) {
    tools = read_json(budget, input.tools_json, kCallers, "tools");
    if (!tools.is(Kind::kList) && !tools.is(Kind::kNone)) throw_invalid("tools must be a list");
  }
  rendering.set("documents", Value::none());
  for (const auto& [name, text] : input.tokens) {
    rendering.set(name, Value::text(budget, decode_text(text)));
  }
  if (!input.arguments_json.empty()) {
    const Value arguments =
        read_json(budget, input.arguments_json, kCallers, "the template's arguments");
    if (!arguments.is(Kind::kDict)) throw_invalid("the template's arguments must be an object");
    for (const DictData::Entry& entry : arguments.as_dict().entries) {
      rendering.set(to_bytes(entry.key.as_text()), entry.value);
    }
  }
  rendering.set("messages", std::move(messages));
  rendering.set("tools", std::move(tools));
  rendering.set("add_generation_prompt", Value::boolean(input.add_generation_prompt));
  try {
    Rendered result = rendering.run(input.source);
    result.joined_parts = join_parts;
    *usable = !conversation.wrote_parts();
    return result;
  } catch (const TemplateError& error) {
    // Perhaps because it wanted a text.
    *usable = join_parts || !conversation.has_parts() || error.problem() == Problem::kSyntax;
    if (*usable) throw;
    return {};
  }
}

}  // namespace

std::string Rendered::text() const {
  std::string all;
  for (const RenderedPiece& piece : pieces) all += piece.text;
  return all;
}

std::string json_text(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (byte < 0x20) {
      out += "\\u00";
      out += {kDigits[byte >> 4], kDigits[byte & 15]};
    } else {
      out += c;
    }
  }
  return out + '"';
}

Rendered render_template(std::string_view source, std::string_view variables_json, bool callers,
                         const RenderOptions& options) {
  Rendering rendering(source.size() + variables_json.size(), options);
  const Value variables =
      read_json(rendering.budget(), variables_json, callers ? kCallers : 0, "variables");
  if (!variables.is(Kind::kDict)) throw_invalid("variables must be an object");
  for (const DictData::Entry& entry : variables.as_dict().entries) {
    rendering.set(to_bytes(entry.key.as_text()), entry.value);
  }
  return rendering.run(source);
}

Rendered render_chat(const ChatInput& input, const RenderOptions& options) {
  bool usable = false;
  Rendered result = render_once(input, options, false, &usable);
  return usable ? result : render_once(input, options, true, &usable);
}

}  // namespace specdec::chat
