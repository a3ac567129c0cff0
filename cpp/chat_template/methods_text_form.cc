// Methods of str that trim, pad, change case and tell what its characters are.
#include <algorithm>

#include "chat_template/builtins.h"
#include "chat_template/unicode.h"

namespace specdec::chat {
namespace {

// The part that is left when characters of `chars` (white space without) go from the ends.
TextView trimmed(Budget& budget, TextView text, const Value* chars, bool left, bool right) {
  budget.work(text.size());
  TextView set;
  const bool spaces = chars == nullptr || chars->is(Kind::kNone);
  if (!spaces) {
    require_defined(*chars);
    if (!chars->is(Kind::kText)) fail("strip arg must be None or str, not " + type_name(*chars));
    set = chars->as_text();
  }
  const auto goes = [&](Unit unit) {
    if (spaces) return is_space(unit);
    budget.work(set.size() + 1);
    return set.find(unit) != TextView::npos;
  };
  while (left && !text.empty() && goes(text.front())) text.remove_prefix(1);
  while (right && !text.empty() && goes(text.back())) text.remove_suffix(1);
  return text;
}

Value strip_any(Interpreter& interpreter, Arguments& arguments, const char* name, bool left,
                bool right) {
  const Bound bound(name, arguments, "self | chars");
  TextBuilder out(interpreter.budget());
  out.append(trimmed(interpreter.budget(), bound[0].as_text(), bound.get(1), left, right));
  return out.take(bound[0].is_markup());
}

Value strip(Interpreter& interpreter, Arguments& arguments) {
  return strip_any(interpreter, arguments, "strip", true, true);
}
Value lstrip(Interpreter& interpreter, Arguments& arguments) {
  return strip_any(interpreter, arguments, "lstrip", true, false);
}
Value rstrip(Interpreter& interpreter, Arguments& arguments) {
  return strip_any(interpreter, arguments, "rstrip", false, true);
}

Value remove_affix(Interpreter& interpreter, Arguments& arguments, const char* name, bool at_end) {
  const Bound bound(name, arguments, "self affix");
  TextView text = bound[0].as_text();
  const TextView wanted = bound.text(1);
  interpreter.budget().work(wanted.size());
  if (at_end && text.ends_with(wanted)) text.remove_suffix(wanted.size());
  if (!at_end && text.starts_with(wanted)) text.remove_prefix(wanted.size());
  TextBuilder out(interpreter.budget());
  out.append(text);
  return out.take(bound[0].is_markup());
}
Value removeprefix(Interpreter& interpreter, Arguments& arguments) {
  return remove_affix(interpreter, arguments, "removeprefix", false);
}
Value removesuffix(Interpreter& interpreter, Arguments& arguments) {
  return remove_affix(interpreter, arguments, "removesuffix", true);
}

Value pad(Interpreter& interpreter, Arguments& arguments, const char* name, bool left, bool right) {
  const Bound bound(name, arguments, "self width | fillchar");
  const TextView text = bound[0].as_text();
  const std::int64_t width = bound.integer(1);
  const Unit fill = bound.get(2) == nullptr     ? U' '
                    : bound.text(2).size() == 1 ? bound.text(2)[0]
                                                : 0;
  if (fill == 0) fail("The fill character must be exactly one character long");
  const auto n = static_cast<std::int64_t>(text.size());
  const auto missing = static_cast<std::size_t>(std::max<std::int64_t>(width - n, 0));
  // str.center() puts the odd one to the left where the width is odd.
  const std::size_t before = left && right
                                 ? missing / 2 + (missing & static_cast<std::size_t>(width) & 1)
                             : left ? missing
                                    : 0;
  TextBuilder out(interpreter.budget());
  out.repeat(fill, before);
  out.append(text);
  out.repeat(fill, missing - before);
  return out.take(bound[0].is_markup());
}
Value center(Interpreter& interpreter, Arguments& arguments) {
  return pad(interpreter, arguments, "center", true, true);
}
Value ljust(Interpreter& interpreter, Arguments& arguments) {
  return pad(interpreter, arguments, "ljust", false, true);
}
Value rjust(Interpreter& interpreter, Arguments& arguments) {
  return pad(interpreter, arguments, "rjust", true, false);
}

Value zfill(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("zfill", arguments, "self width");
  TextView text = bound[0].as_text();
  const std::int64_t width = bound.integer(1);
  TextBuilder out(interpreter.budget());
  const auto n = static_cast<std::int64_t>(text.size());
  if (width > n) {
    if (!text.empty() && (code_of(text[0]) == '+' || code_of(text[0]) == '-')) {
      out.push(text[0]);
      text.remove_prefix(1);
    }
    out.repeat(U'0', static_cast<std::size_t>(width - n));
  }
  out.append(text);
  return out.take(bound[0].is_markup());
}

Value expandtabs(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("expandtabs", arguments, "self | tabsize");
  const std::int64_t size = bound.integer(1, 8);
  TextBuilder out(interpreter.budget());
  std::int64_t column = 0;
  for (const Unit unit : bound[0].as_text()) {
    if (code_of(unit) == '\t') {
      if (size <= 0) continue;
      const std::int64_t n = size - column % size;
      out.repeat(U' ' | (unit & kCallers), static_cast<std::size_t>(n));
      column += n;
    } else {
      out.push(unit);
      column = code_of(unit) == '\n' || code_of(unit) == '\r' ? 0 : column + 1;
    }
  }
  return out.take(bound[0].is_markup());
}

using Change = void (*)(Text& out, TextView text, std::size_t at, bool starts_word);

Value changed(Interpreter& interpreter, Arguments& arguments, const char* name, Change change) {
  const Bound bound(name, arguments, "self");
  const TextView text = bound[0].as_text();
  TextBuilder out(interpreter.budget());
  bool in_word = false;
  Text part;
  interpreter.budget().work(12 * text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    part.clear();
    change(part, text, i, !in_word);
    in_word = has_property(text[i], kCased);
    // A sigma looks at its neighbours, as far as they have no case.
    if (code_of(text[i]) == 0x3a3) interpreter.budget().work(text.size());
    out.append(part);
  }
  return out.take(bound[0].is_markup());
}

Value upper_case(Interpreter& interpreter, Arguments& arguments) {
  return changed(
      interpreter, arguments, "upper",
      [](Text& out, TextView text, std::size_t at, bool) { append_upper(out, text[at]); });
}
Value lower_case(Interpreter& interpreter, Arguments& arguments) {
  return changed(
      interpreter, arguments, "lower",
      [](Text& out, TextView text, std::size_t at, bool) { append_lower(out, text, at); });
}
Value capitalize(Interpreter& interpreter, Arguments& arguments) {
  return changed(interpreter, arguments, "capitalize",
                 [](Text& out, TextView text, std::size_t at, bool) {
                   if (at == 0) {
                     append_title(out, text[0]);
                   } else {
                     append_lower(out, text, at);
                   }
                 });
}
Value title(Interpreter& interpreter, Arguments& arguments) {
  return changed(interpreter, arguments, "title",
                 [](Text& out, TextView text, std::size_t at, bool starts_word) {
                   if (starts_word) {
                     append_title(out, text[at]);
                   } else {
                     append_lower(out, text, at);
                   }
                 });
}
Value swapcase(Interpreter& interpreter, Arguments& arguments) {
  return changed(interpreter, arguments, "swapcase",
                 [](Text& out, TextView text, std::size_t at, bool) {
                   if (has_property(text[at], kUpperCase)) {
                     append_lower(out, text, at);
                   } else if (has_property(text[at], kLowerCase)) {
                     append_upper(out, text[at]);
                   } else {
                     out.push_back(text[at]);
                   }
                 });
}

TextView looked_at(Interpreter& interpreter, Arguments& arguments, const char* name) {
  const Bound bound(name, arguments, "self");
  interpreter.budget().work(12 * bound[0].as_text().size());
  return bound[0].as_text();
}

// Not empty, and all characters have one of the properties.
template <std::uint32_t kAnyOf>
Value all_are(Interpreter& interpreter, Arguments& arguments) {
  const TextView text = looked_at(interpreter, arguments, "is...");
  return Value::boolean(!text.empty() && std::all_of(text.begin(), text.end(), [](Unit unit) {
    return has_property(unit, kAnyOf);
  }));
}

// Some letter has the case, and none another.
template <std::uint32_t kWanted>
Value is_case(Interpreter& interpreter, Arguments& arguments) {
  bool any = false;
  for (const Unit unit : looked_at(interpreter, arguments, "is...")) {
    const std::uint32_t found = properties_of(unit);
    if ((found & kCased & ~kWanted) != 0) return Value::boolean(false);
    any |= (found & kWanted) != 0;
  }
  return Value::boolean(any);
}

Value istitle(Interpreter& interpreter, Arguments& arguments) {
  bool any = false, in_word = false;
  for (const Unit unit : looked_at(interpreter, arguments, "istitle")) {
    const std::uint32_t found = properties_of(unit);
    const bool big = (found & (kUpperCase | kTitleCase)) != 0;
    const bool small = (found & kLowerCase) != 0;
    if ((big && in_word) || (small && !in_word)) return Value::boolean(false);
    in_word = big || small;
    any |= in_word;
  }
  return Value::boolean(any);
}

// Not isascii: a macro of C libraries.
Value is_ascii(Interpreter& interpreter, Arguments& arguments) {
  const TextView text = looked_at(interpreter, arguments, "isascii");
  return Value::boolean(
      std::all_of(text.begin(), text.end(), [](Unit unit) { return code_of(unit) < 0x80; }));
}

Value isprintable(Interpreter& interpreter, Arguments& arguments) {
  const TextView text = looked_at(interpreter, arguments, "isprintable");
  return Value::boolean(std::all_of(text.begin(), text.end(),
                                    [](Unit unit) { return has_property(unit, kPrintable); }));
}

Value isidentifier(Interpreter& interpreter, Arguments& arguments) {
  const TextView text = looked_at(interpreter, arguments, "isidentifier");
  const bool starts = !text.empty() && (code_of(text[0]) == '_' || has_property(text[0], kAlpha));
  return Value::boolean(starts && std::all_of(text.begin(), text.end(), [](Unit unit) {
                          return has_property(unit, kNamePart);
                        }));
}

constexpr NamedBuiltin kTrimTable[] = {
    {"center", center},
    {"expandtabs", expandtabs},
    {"ljust", ljust},
    {"lstrip", lstrip},
    {"removeprefix", removeprefix},
    {"removesuffix", removesuffix},
    {"rjust", rjust},
    {"rstrip", rstrip},
    {"strip", strip},
    {"zfill", zfill},
};

constexpr NamedBuiltin kFormTable[] = {
    {"capitalize", capitalize},
    {"isalnum", all_are<kAlphanumeric>},
    {"isalpha", all_are<kAlpha>},
    {"isascii", is_ascii},
    {"isdecimal", all_are<kDecimal>},
    {"isdigit", all_are<kDigit>},
    {"isidentifier", isidentifier},
    {"islower", is_case<kLowerCase>},
    {"isnumeric", all_are<kNumeric>},
    {"isprintable", isprintable},
    {"isspace", all_are<kSpace>},
    {"istitle", istitle},
    {"isupper", is_case<kUpperCase>},
    {"lower", lower_case},
    {"swapcase", swapcase},
    {"title", title},
    {"upper", upper_case},
};

}  // namespace

const std::span<const NamedBuiltin> kTextTrimMethods = kTrimTable;
const std::span<const NamedBuiltin> kTextFormMethods = kFormTable;

}  // namespace specdec::chat
