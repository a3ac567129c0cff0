// Methods of str that look for something, cut and join.
#include <algorithm>

#include "chat_template/builtins.h"
#include "chat_template/compare.h"
#include "chat_template/unicode.h"

namespace specdec::chat {
namespace {

// [start, stop) as str.find(sub, start, stop) takes it; start may lie behind the end.
struct Part {
  std::size_t start, stop;
};

std::optional<std::int64_t> bound_of(const Bound& bound, std::size_t i) {
  if (bound.get(i) == nullptr || bound[i].is(Kind::kNone)) return std::nullopt;
  return bound.integer(i);
}

std::optional<Part> part_of(const Bound& bound, std::size_t first, std::size_t size) {
  const auto n = static_cast<std::int64_t>(size);
  std::int64_t start = bound_of(bound, first).value_or(0);
  std::int64_t stop = bound_of(bound, first + 1).value_or(n);
  if (start < 0) start = std::max<std::int64_t>(start + n, 0);
  if (stop < 0) stop = std::max<std::int64_t>(stop + n, 0);
  stop = std::min(stop, n);
  if (start > stop) return std::nullopt;
  return Part{static_cast<std::size_t>(start), static_cast<std::size_t>(stop)};
}

Value find_any(Interpreter& interpreter, Arguments& arguments, const char* name, bool last,
               bool must) {
  const Bound bound(name, arguments, "self sub | start end");
  const TextView text = bound[0].as_text(), wanted = bound.text(1);
  if (const std::optional<Part> part = part_of(bound, 2, text.size())) {
    const TextView inside = text.substr(part->start, part->stop - part->start);
    const std::size_t at = last ? find_last_text(interpreter.budget(), inside, wanted)
                                : find_text(interpreter.budget(), inside, wanted);
    if (at != TextView::npos) return Value::integer(static_cast<std::int64_t>(part->start + at));
  }
  if (must) fail("substring not found");
  return Value::integer(-1);
}

Value find(Interpreter& interpreter, Arguments& arguments) {
  return find_any(interpreter, arguments, "find", false, false);
}
Value rfind(Interpreter& interpreter, Arguments& arguments) {
  return find_any(interpreter, arguments, "rfind", true, false);
}
Value index(Interpreter& interpreter, Arguments& arguments) {
  return find_any(interpreter, arguments, "index", false, true);
}
Value rindex(Interpreter& interpreter, Arguments& arguments) {
  return find_any(interpreter, arguments, "rindex", true, true);
}

Value count(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("count", arguments, "self sub | start end");
  const TextView text = bound[0].as_text(), wanted = bound.text(1);
  const std::optional<Part> part = part_of(bound, 2, text.size());
  if (!part) return Value::integer(0);
  const TextView inside = text.substr(part->start, part->stop - part->start);
  if (wanted.empty()) return Value::integer(static_cast<std::int64_t>(inside.size() + 1));
  std::int64_t n = 0;
  for (std::size_t at = 0;;) {
    at = find_text(interpreter.budget(), inside, wanted, at);
    if (at == TextView::npos) return Value::integer(n);
    ++n;
    at += wanted.size();
  }
}

Value affix(Interpreter& interpreter, Arguments& arguments, const char* name, bool at_end) {
  const Bound bound(name, arguments, "self affix | start end");
  const TextView text = bound[0].as_text();
  Values candidates;
  if (bound[1].is(Kind::kTuple)) {
    candidates = iterate(interpreter.budget(), bound[1]);
  } else {
    (void)bound.text(1);
    candidates.push_back(bound[1]);
  }
  const std::optional<Part> part = part_of(bound, 2, text.size());
  for (const Value& candidate : candidates) {
    if (!candidate.is(Kind::kText)) {
      fail(std::string(name) + "() takes str or a tuple of str, not " + type_name(candidate));
    }
    if (!part) continue;
    const TextView inside = text.substr(part->start, part->stop - part->start);
    const TextView wanted = candidate.as_text();
    interpreter.budget().work(wanted.size() + 8);
    if (at_end ? inside.ends_with(wanted) : inside.starts_with(wanted)) {
      return Value::boolean(true);
    }
  }
  return Value::boolean(false);
}

Value startswith(Interpreter& interpreter, Arguments& arguments) {
  return affix(interpreter, arguments, "startswith", false);
}
Value endswith(Interpreter& interpreter, Arguments& arguments) {
  return affix(interpreter, arguments, "endswith", true);
}

Value part(Interpreter& interpreter, const Value& self, std::size_t begin, std::size_t end) {
  TextBuilder out(interpreter.budget());
  out.append(self.as_text().substr(begin, end - begin));
  return out.take(self.is_markup());
}

// By runs of white space, from the left or from the right.
Values split_spaces(Interpreter& interpreter, const Value& self, std::int64_t limit,
                    bool from_right) {
  const TextView text = self.as_text();
  interpreter.budget().work(4 * text.size());
  Values parts;
  std::size_t begin = 0, end = text.size();
  if (from_right) {
    while (true) {
      while (end > 0 && is_space(text[end - 1])) --end;
      if (end == 0) break;
      std::size_t first = end;
      if (limit == 0) {
        first = 0;
      } else {
        while (first > 0 && !is_space(text[first - 1])) --first;
      }
      --limit;
      parts.push_back(part(interpreter, self, first, end));
      end = first;
    }
    std::reverse(parts.begin(), parts.end());
    return parts;
  }
  while (true) {
    while (begin < end && is_space(text[begin])) ++begin;
    if (begin == end) return parts;
    std::size_t last = begin;
    if (limit == 0) {
      last = end;
    } else {
      while (last < end && !is_space(text[last])) ++last;
    }
    --limit;
    parts.push_back(part(interpreter, self, begin, last));
    begin = last;
  }
}

Values split_at(Interpreter& interpreter, const Value& self, TextView separator, std::int64_t limit,
                bool from_right) {
  if (separator.empty()) fail("empty separator");
  const TextView text = self.as_text();
  Values parts;
  if (from_right) {
    std::size_t end = text.size();
    for (; limit != 0; --limit) {
      const std::size_t at = find_last_text(interpreter.budget(), text.substr(0, end), separator);
      if (at == TextView::npos) break;
      parts.push_back(part(interpreter, self, at + separator.size(), end));
      end = at;
    }
    parts.push_back(part(interpreter, self, 0, end));
    std::reverse(parts.begin(), parts.end());
    return parts;
  }
  std::size_t begin = 0;
  for (; limit != 0; --limit) {
    const std::size_t at = find_text(interpreter.budget(), text, separator, begin);
    if (at == TextView::npos) break;
    parts.push_back(part(interpreter, self, begin, at));
    begin = at + separator.size();
  }
  parts.push_back(part(interpreter, self, begin, text.size()));
  return parts;
}

Value split_any(Interpreter& interpreter, Arguments& arguments, const char* name, bool from_right) {
  const Bound bound(name, arguments, "self | sep maxsplit");
  const std::int64_t limit = bound.integer(2, -1);
  const bool at_spaces = bound.get(1) == nullptr || bound[1].is(Kind::kNone);
  return Value::list(interpreter.budget(),
                     at_spaces ? split_spaces(interpreter, bound[0], limit, from_right)
                               : split_at(interpreter, bound[0], bound.text(1), limit, from_right));
}

Value split(Interpreter& interpreter, Arguments& arguments) {
  return split_any(interpreter, arguments, "split", false);
}
Value rsplit(Interpreter& interpreter, Arguments& arguments) {
  return split_any(interpreter, arguments, "rsplit", true);
}

bool ends_line(Unit unit) {
  const Unit c = code_of(unit);
  return (c >= 0xa && c <= 0xd) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

Value splitlines(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("splitlines", arguments, "self | keepends");
  const TextView text = bound[0].as_text();
  interpreter.budget().work(text.size());
  Values lines;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = begin;
    while (end < text.size() && !ends_line(text[end])) ++end;
    std::size_t next = std::min(end + 1, text.size());
    if (next < text.size() && code_of(text[end]) == '\r' && code_of(text[next]) == '\n') ++next;
    lines.push_back(part(interpreter, bound[0], begin, bound.flag(1, false) ? next : end));
    begin = next;
  }
  return Value::list(interpreter.budget(), std::move(lines));
}

Value partition_any(Interpreter& interpreter, Arguments& arguments, const char* name, bool last) {
  const Bound bound(name, arguments, "self sep");
  const TextView text = bound[0].as_text(), separator = bound.text(1);
  if (separator.empty()) fail("empty separator");
  const std::size_t at = last ? find_last_text(interpreter.budget(), text, separator)
                              : find_text(interpreter.budget(), text, separator);
  const Value& self = bound[0];
  if (at == TextView::npos) {
    const Value nothing = part(interpreter, self, 0, 0);
    return Value::tuple(interpreter.budget(),
                        last ? Values{nothing, nothing, self} : Values{self, nothing, nothing});
  }
  return Value::tuple(
      interpreter.budget(),
      {part(interpreter, self, 0, at), part(interpreter, self, at, at + separator.size()),
       part(interpreter, self, at + separator.size(), text.size())});
}

Value partition(Interpreter& interpreter, Arguments& arguments) {
  return partition_any(interpreter, arguments, "partition", false);
}
Value rpartition(Interpreter& interpreter, Arguments& arguments) {
  return partition_any(interpreter, arguments, "rpartition", true);
}

void refuse_markup(const Value& self, const char* name) {
  if (self.is_markup()) {
    fail(std::string("'") + name + "' of a value made with 'safe' is not supported");
  }
}

Value replace(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("replace", arguments, "self old new | count");
  refuse_markup(bound[0], "replace");
  const TextView text = bound[0].as_text(), before = bound.text(1), after = bound.text(2);
  std::int64_t limit = bound.integer(3, -1);
  TextBuilder out(interpreter.budget());
  if (before.empty()) {
    for (std::size_t i = 0; i <= text.size(); ++i) {
      if (limit != 0) out.append(after);
      if (limit > 0) --limit;
      if (i < text.size()) out.push(text[i]);
    }
    return out.take();
  }
  std::size_t begin = 0;
  for (; limit != 0; --limit) {
    const std::size_t at = find_text(interpreter.budget(), text, before, begin);
    if (at == TextView::npos) break;
    out.append(text.substr(begin, at - begin));
    out.append(after);
    begin = at + before.size();
  }
  out.append(text.substr(begin));
  return out.take();
}

Value join(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("join", arguments, "self iterable");
  refuse_markup(bound[0], "join");
  require_defined(bound[0]);
  TextBuilder out(interpreter.budget());
  bool first = true;
  for (const Value& item : iterate(interpreter.budget(), bound[1])) {
    if (!item.is(Kind::kText)) {
      fail("sequence item: expected str instance, " + type_name(item) + " found");
    }
    if (!first) out.append(bound[0].as_text());
    first = false;
    out.append(item.as_text());
  }
  return out.take();
}

Value format(Interpreter& interpreter, Arguments& arguments) {
  const Value self = arguments.positional[0];
  refuse_markup(self, "format");
  arguments.positional.erase(arguments.positional.begin());
  return brace_format(interpreter, self, arguments);
}

constexpr NamedBuiltin kTable[] = {
    {"count", count},         {"endswith", endswith},     {"find", find},
    {"format", format},       {"index", index},           {"join", join},
    {"partition", partition}, {"replace", replace},       {"rfind", rfind},
    {"rindex", rindex},       {"rpartition", rpartition}, {"rsplit", rsplit},
    {"split", split},         {"splitlines", splitlines}, {"startswith", startswith},
};

}  // namespace

const std::span<const NamedBuiltin> kTextMethods = kTable;

}  // namespace specdec::chat
