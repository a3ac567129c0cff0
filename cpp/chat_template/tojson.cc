// The filter `tojson` as transformers defines it: json.dumps() without escapes for HTML.
#include <algorithm>
#include <cmath>

#include "chat_template/builtins.h"
#include "chat_template/compare.h"

namespace specdec::chat {
namespace {

class JsonDumper {
 public:
  JsonDumper(Interpreter& interpreter, const Bound& bound)
      : interpreter_(interpreter), out_(interpreter.budget()) {
    ensure_ascii_ = bound.flag(1, false);
    sort_keys_ = bound.flag(4, false);
    Budget& budget = interpreter.budget();
    if (bound.get(2) != nullptr && !bound[2].is(Kind::kNone)) {
      pretty_ = true;
      if (bound[2].is(Kind::kText)) {
        indent_ = Text(bound[2].as_text());
      } else {
        const std::int64_t width = bound.integer(2);
        if (width > 100) fail("tojson(): an indent above 100 is not supported");
        indent_ = Text(static_cast<std::size_t>(std::max<std::int64_t>(width, 0)), U' ');
      }
      item_separator_ = ascii_text(",");
    }
    if (bound.get(3) != nullptr && !bound[3].is(Kind::kNone)) {
      const Values parts = iterate(budget, bound[3]);
      if (parts.size() != 2 || !parts[0].is(Kind::kText) || !parts[1].is(Kind::kText)) {
        fail("tojson(): separators must be two texts");
      }
      item_separator_ = Text(parts[0].as_text());
      key_separator_ = Text(parts[1].as_text());
    }
  }

  Value run(const Value& value) {
    write(value, 0);
    return out_.take();
  }

 private:
  void new_line(std::size_t level) {
    if (!pretty_) return;
    out_.push('\n');
    for (std::size_t i = 0; i < level; ++i) out_.append(indent_);
  }

  void write(const Value& value, std::size_t level) {
    interpreter_.budget().work(16);
    switch (value.kind()) {
      case Kind::kNone:
        return out_.ascii("null");
      case Kind::kBool:
        return out_.ascii(value.as_bool() ? "true" : "false", value.mark());
      case Kind::kInt:
        return out_.ascii(std::to_string(value.as_int()), value.mark());
      case Kind::kFloat:
        return out_.ascii(real_text(value.as_double()), value.mark());
      case Kind::kText:
        return write_text(value.as_text());
      case Kind::kList:
      case Kind::kTuple:
        return write_list(value.as_list().items, level);
      case Kind::kDict:
        return write_dict(value.as_dict(), level);
      default:
        fail("Object of type " + type_name(value) + " is not JSON serializable");
    }
  }

  static std::string real_text(double real) {
    if (std::isnan(real)) return "NaN";
    if (std::isinf(real)) return real < 0 ? "-Infinity" : "Infinity";
    return float_text(real);
  }

  void write_list(const Values& items, std::size_t level) {
    if (items.empty()) return out_.ascii("[]");
    out_.push('[');
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.append(item_separator_);
      new_line(level + 1);
      write(items[i], level + 1);
    }
    new_line(level);
    out_.push(']');
  }

  void write_dict(const DictData& dict, std::size_t level) {
    if (dict.entries.empty()) return out_.ascii("{}");
    std::vector<const DictData::Entry*> entries;
    entries.reserve(dict.entries.size());
    for (const DictData::Entry& entry : dict.entries) entries.push_back(&entry);
    if (sort_keys_) sort(entries);
    out_.push('{');
    bool first = true;
    for (const DictData::Entry* entry : entries) {
      if (!first) out_.append(item_separator_);
      first = false;
      new_line(level + 1);
      write_key(entry->key);
      out_.append(key_separator_);
      write(entry->value, level + 1);
    }
    new_line(level);
    out_.push('}');
  }

  // Keys are different, so the order is the same whatever the method.
  void sort(std::vector<const DictData::Entry*>& entries) {
    std::size_t n = entries.size();
    for (std::size_t width = n; width > 1; width /= 2) interpreter_.budget().work(n * kStepWork);
    std::vector<const DictData::Entry*> merged(n);
    for (std::size_t width = 1; width < n; width *= 2) {
      for (std::size_t begin = 0; begin < n; begin += 2 * width) {
        const auto first = entries.begin();
        const auto at = [&](std::size_t i) {
          return first + static_cast<std::ptrdiff_t>(std::min(i, n));
        };
        std::merge(at(begin), at(begin + width), at(begin + width), at(begin + 2 * width),
                   merged.begin() + static_cast<std::ptrdiff_t>(begin),
                   [&](const DictData::Entry* a, const DictData::Entry* b) {
                     return less(interpreter_.budget(), a->key, b->key);
                   });
      }
      entries.swap(merged);
    }
  }

  void write_key(const Value& key) {
    switch (key.kind()) {
      case Kind::kText:
        return write_text(key.as_text());
      case Kind::kNone:
      case Kind::kBool:
      case Kind::kInt:
      case Kind::kFloat:
        out_.push('"');
        write(key, 0);
        return out_.push('"');
      default:
        fail("keys must be str, int, float, bool or None, not " + type_name(key));
    }
  }

  void write_escape(Unit code, Unit mark) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    out_.ascii("\\u", mark);
    for (int shift = 12; shift >= 0; shift -= 4) {
      out_.push(static_cast<Unit>(kDigits[code >> shift & 15]) | mark);
    }
  }

  void write_text(TextView text) {
    out_.push('"');
    for (const Unit unit : text) {
      const Unit code = code_of(unit), mark = unit & kCallers;
      constexpr std::string_view kSpecial = "\"\\\n\r\t\f\b";
      constexpr std::string_view kLetters = "\"\\nrtfb";
      const std::size_t special =
          code < 0x80 ? kSpecial.find(static_cast<char>(code)) : std::string_view::npos;
      if (special != std::string_view::npos) {
        out_.push('\\' | mark);
        out_.push(static_cast<Unit>(kLetters[special]) | mark);
      } else if (code < 0x20 || (ensure_ascii_ && code >= 0x7f && code < 0x10000)) {
        write_escape(code, mark);
      } else if (ensure_ascii_ && code >= 0x10000 && code < kRawByte) {
        write_escape(0xd800 + ((code - 0x10000) >> 10), mark);
        write_escape(0xdc00 + ((code - 0x10000) & 0x3ff), mark);
      } else {
        out_.push(unit);
      }
    }
    out_.push('"');
  }

  Interpreter& interpreter_;
  TextBuilder out_;
  bool ensure_ascii_ = false, sort_keys_ = false, pretty_ = false;
  Text indent_;
  Text item_separator_ = ascii_text(", ");
  Text key_separator_ = ascii_text(": ");
};

}  // namespace

Value to_json(Interpreter& interpreter, const Value& value, const Arguments& rest) {
  Arguments all = rest;
  all.positional.insert(all.positional.begin(), value);
  const Bound bound("tojson", all, "x | ensure_ascii indent separators sort_keys");
  return JsonDumper(interpreter, bound).run(bound[0]);
}

}  // namespace specdec::chat
