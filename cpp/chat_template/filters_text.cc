// Filters that make text.
#include <algorithm>

#include "chat_template/builtins.h"
#include "chat_template/unicode.h"

namespace specdec::chat {
namespace {

// The value as text: what `safe` made stays that.
Value soft_text(Interpreter& interpreter, const Value& value) {
  return value.is(Kind::kText) ? value : to_text_value(interpreter.budget(), value);
}

// A method of str as a filter.
Value by_method(Interpreter& interpreter, Arguments& arguments, std::string_view method) {
  if (arguments.positional.empty()) fail(std::string(method) + "() needs a value");
  arguments.positional[0] = soft_text(interpreter, arguments.positional[0]);
  const Value bound = find_attribute(interpreter, arguments.positional[0], method).value();
  arguments.positional.erase(arguments.positional.begin());
  return interpreter.call(bound, arguments);
}

Value capitalize(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("capitalize", arguments, "s");
  return by_method(interpreter, arguments, "capitalize");
}
Value lower_case(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("lower", arguments, "s");
  return by_method(interpreter, arguments, "lower");
}
Value upper_case(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("upper", arguments, "s");
  return by_method(interpreter, arguments, "upper");
}
Value trim(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("trim", arguments, "value | chars");
  Arguments inner;
  inner.positional.push_back(bound[0]);
  if (bound.get(1) != nullptr) inner.positional.push_back(bound[1]);
  return by_method(interpreter, inner, "strip");
}
Value center(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("center", arguments, "value | width");
  Arguments inner;
  inner.positional = {bound[0], Value::integer(bound.integer(1, 80))};
  return by_method(interpreter, inner, "center");
}

Value replace(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("replace", arguments, "s old new | count");
  Arguments inner;
  for (std::size_t i = 0; i < 3; ++i) {
    inner.positional.push_back(to_text_value(interpreter.budget(), bound[i]));
  }
  if (bound.get(3) != nullptr && !bound[3].is(Kind::kNone)) inner.positional.push_back(bound[3]);
  return by_method(interpreter, inner, "replace");
}

Value string(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("string", arguments, "object");
  return soft_text(interpreter, bound[0]);
}

Value safe(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("safe", arguments, "value");
  return Value::text(interpreter.budget(), text_of(interpreter.budget(), bound[0]), true);
}

Value escape(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("escape", arguments, "s");
  return html_escaped(interpreter, bound[0]);
}

Value force_escape(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("forceescape", arguments, "value");
  return html_escaped(interpreter, to_text_value(interpreter.budget(), bound[0]));
}

Value format(Interpreter& interpreter, Arguments& arguments) {
  if (arguments.positional.empty()) fail("format() needs a value");
  const Value value = soft_text(interpreter, arguments.positional[0]);
  Budget& budget = interpreter.budget();
  if (arguments.positional.size() > 1 && !arguments.named.empty()) {
    fail("can't handle positional and keyword arguments at the same time");
  }
  if (arguments.named.empty()) {
    return percent_format(
        interpreter, value,
        Value::tuple(budget, Values(arguments.positional.begin() + 1, arguments.positional.end())));
  }
  const Ref<DictData> named = make_heap<DictData>(budget);
  for (const auto& [name, item] : arguments.named) {
    named->set(Value::text(budget, decode_text(name)), item);
  }
  return percent_format(interpreter, value, Value::dict(named));
}

bool begins_word(Unit unit) {
  const Unit c = code_of(unit);
  return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || is_space(unit);
}

Value title(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("title", arguments, "s");
  const Value value = soft_text(interpreter, bound[0]);
  const TextView text = value.as_text();
  TextBuilder out(interpreter.budget());
  Text part;
  interpreter.budget().work(12 * text.size());
  // Runs of separators and of other characters alternate; each begins large.
  for (std::size_t begin = 0; begin < text.size();) {
    const bool separators = begins_word(text[begin]);
    std::size_t end = begin + 1;
    while (end < text.size() && begins_word(text[end]) == separators) ++end;
    part.clear();
    append_upper(part, text[begin]);
    part += lower(text.substr(begin + 1, end - begin - 1));
    out.append(part);
    begin = end;
  }
  return out.take();
}

// As str.splitlines(): ends of lines that are not "\n" count too.
Values lines_of(Interpreter& interpreter, const Value& text) {
  Arguments none;
  return iterate(interpreter.budget(),
                 interpreter.call(find_attribute(interpreter, text, "splitlines").value(), none));
}

Value indent(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("indent", arguments, "s | width first blank");
  if (bound[0].is_markup()) fail("'indent' of a value made with 'safe' is not supported");
  TextBuilder with_end(interpreter.budget());
  with_end.append(bound.text(0));
  with_end.push('\n');
  Text indention;
  if (bound.get(1) != nullptr && bound[1].is(Kind::kText)) {
    indention = Text(bound[1].as_text());
  } else {
    TextBuilder spaces(interpreter.budget());
    spaces.repeat(' ', static_cast<std::size_t>(std::max<std::int64_t>(bound.integer(1, 4), 0)));
    indention = spaces.take_text();
  }
  const bool blank = bound.flag(3, false);
  TextBuilder out(interpreter.budget());
  if (bound.flag(2, false)) out.append(indention);
  bool first = true;
  for (const Value& line : lines_of(interpreter, with_end.take())) {
    if (!first) {
      out.push('\n');
      if (blank || !line.as_text().empty()) out.append(indention);
    }
    first = false;
    out.append(line.as_text());
  }
  return out.take();
}

Value truncate(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("truncate", arguments, "s | length killwords end leeway");
  TextView text = bound.text(0);
  const std::int64_t length = bound.integer(1, 255), leeway = bound.integer(4, 5);
  const Text end = bound.get(3) == nullptr ? ascii_text("...") : Text(bound.text(3));
  const auto n_end = static_cast<std::int64_t>(end.size());
  if (length < n_end) fail("truncate(): expected length >= " + std::to_string(n_end));
  if (leeway < 0) fail("truncate(): expected leeway >= 0");
  if (static_cast<std::int64_t>(text.size()) - leeway <= length) return bound[0];
  text = text.substr(0, static_cast<std::size_t>(length - n_end));
  if (!bound.flag(2, false)) {
    interpreter.budget().work(text.size());
    if (const std::size_t space = text.rfind(U' '); space != TextView::npos) {
      text = text.substr(0, space);
    }
  }
  TextBuilder out(interpreter.budget());
  out.append(text);
  out.append(end);
  return out.take();
}

Value wordcount(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("wordcount", arguments, "s");
  const Value value = soft_text(interpreter, bound[0]);
  interpreter.budget().work(12 * value.as_text().size());
  std::int64_t n = 0;
  bool inside = false;
  for (const Unit unit : value.as_text()) {
    const bool word = code_of(unit) == '_' || has_property(unit, kAlphanumeric);
    n += word && !inside ? 1 : 0;
    inside = word;
  }
  return Value::integer(n);
}

void write_quoted(TextBuilder& out, const Value& value, bool for_query) {
  TextBuilder plain(out.budget());
  plain.write(value);
  for (const Unit unit : plain.view()) {
    const Unit c = code_of(unit), mark = unit & kCallers;
    const bool kept = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                      c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !for_query);
    if (kept) {
      out.push(unit);
    } else if (c == ' ' && for_query) {
      out.push('+' | mark);
    } else {
      for (const char byte : to_bytes(TextView(&unit, 1))) {
        constexpr std::string_view kDigits = "0123456789ABCDEF";
        const auto b = static_cast<unsigned char>(byte);
        out.push('%' | mark);
        out.push(static_cast<Unit>(kDigits[b >> 4]) | mark);
        out.push(static_cast<Unit>(kDigits[b & 15]) | mark);
      }
    }
  }
}

Value urlencode(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("urlencode", arguments, "value");
  const Value& value = bound[0];
  TextBuilder out(interpreter.budget());
  if (value.is(Kind::kText) || !is_iterable(value)) {
    write_quoted(out, value, false);
    return out.take();
  }
  Values pairs;
  if (value.is(Kind::kDict)) {
    for (const DictData::Entry& entry : value.as_dict().entries) {
      pairs.push_back(Value::tuple(interpreter.budget(), {entry.key, entry.value}));
    }
  } else {
    pairs = iterate(interpreter.budget(), value);
  }
  bool first = true;
  for (const Value& pair : pairs) {
    const Values parts = iterate(interpreter.budget(), pair);
    if (parts.size() != 2) fail("urlencode(): expected pairs of a name and a value");
    if (!first) out.push('&');
    first = false;
    write_quoted(out, parts[0], true);
    out.push('=');
    write_quoted(out, parts[1], true);
  }
  return out.take();
}

Value tojson(Interpreter& interpreter, Arguments& arguments) {
  if (arguments.positional.empty()) fail("tojson() needs a value");
  const Value value = arguments.positional[0];
  arguments.positional.erase(arguments.positional.begin());
  return to_json(interpreter, value, arguments);
}

constexpr NamedBuiltin kTable[] = {
    {"capitalize", capitalize},
    {"center", center},
    {"e", escape},
    {"escape", escape},
    {"forceescape", force_escape},
    {"format", format},
    {"indent", indent},
    {"lower", lower_case},
    {"replace", replace},
    {"safe", safe},
    {"string", string},
    {"title", title},
    {"tojson", tojson},
    {"trim", trim},
    {"truncate", truncate},
    {"upper", upper_case},
    {"urlencode", urlencode},
    {"wordcount", wordcount},
};

}  // namespace

const std::span<const NamedBuiltin> kTextFilters = kTable;

Value html_escaped(Interpreter& interpreter, const Value& value) {
  if (value.is_markup()) return value;
  TextBuilder plain(interpreter.budget());
  plain.write(value);
  TextBuilder out(interpreter.budget());
  for (const Unit unit : plain.view()) {
    const Unit mark = unit & kCallers;
    switch (code_of(unit)) {
      case '&':
        out.ascii("&amp;", mark);
        break;
      case '<':
        out.ascii("&lt;", mark);
        break;
      case '>':
        out.ascii("&gt;", mark);
        break;
      case '\'':
        out.ascii("&#39;", mark);
        break;
      case '"':
        out.ascii("&#34;", mark);
        break;
      default:
        out.push(unit);
    }
  }
  return out.take(true);
}

}  // namespace specdec::chat
