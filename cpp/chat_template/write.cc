#include "chat_template/write.h"

#include <charconv>
#include <cmath>
#include <cstdio>

#include "chat_template/callable.h"
#include "chat_template/unicode.h"

namespace specdec::chat {
namespace {

void write_number(TextBuilder& out, const Value& value) {
  if (value.is(Kind::kBool)) {
    out.ascii(value.as_bool() ? "True" : "False", value.mark());
  } else if (value.is(Kind::kInt)) {
    out.ascii(std::to_string(value.as_int()), value.mark());
  } else {
    out.ascii(float_text(value.as_double()), value.mark());
  }
}

void write_quoted(TextBuilder& out, TextView text) {
  bool single = false, twice = false;
  out.budget().work(text.size());
  for (const Unit unit : text) {
    single |= code_of(unit) == '\'';
    twice |= code_of(unit) == '"';
  }
  const Unit quote = single && !twice ? '"' : '\'';
  out.push(quote);
  for (const Unit unit : text) {
    const Unit code = code_of(unit), mark = unit & kCallers;
    char escape[16];
    if (code == quote || code == '\\') {
      out.push('\\' | mark);
      out.push(unit);
    } else if (code == '\n' || code == '\r' || code == '\t') {
      out.push('\\' | mark);
      out.push((code == '\n' ? 'n' : code == '\r' ? 'r' : 't') | mark);
    } else if (has_property(code, kPrintable)) {
      out.push(unit);
    } else {
      const char* format = code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x";
      std::snprintf(escape, sizeof escape, format, static_cast<unsigned>(code));
      out.ascii(escape, mark);
    }
  }
  out.push(quote);
}

void write_items(TextBuilder& out, const Values& items) {
  bool first = true;
  for (const Value& item : items) {
    if (!first) out.ascii(", ");
    first = false;
    out.write_repr(item);
  }
}

}  // namespace

std::string float_text(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::scientific);
  const std::string shortest(buffer, end.ptr);
  const std::size_t e = shortest.find('e');
  const int exponent = std::stoi(shortest.substr(e + 1));
  if (exponent < -4 || exponent >= 16) {
    // Python has at least two digits in the exponent, as to_chars has.
    return shortest;
  }
  const auto fixed =
      std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::fixed);
  std::string text(buffer, fixed.ptr);
  if (text.find('.') == std::string::npos) text += ".0";
  return text;
}

void TextBuilder::hold(std::size_t n) {
  const std::size_t wanted = (text_.size() + n) * sizeof(Unit);
  const std::size_t more = wanted - held_ + held_ / 2 + 64;
  budget_.hold(more);
  held_ += more;
}

void TextBuilder::write(const Value& value) {
  switch (value.kind()) {
    case Kind::kText:
      append(value.as_text());
      break;
    case Kind::kUndefined:
      break;
    default:
      write_repr(value);
  }
}

void TextBuilder::write_repr(const Value& value) {
  budget_.work(8);
  switch (value.kind()) {
    case Kind::kUndefined:
      return ascii("Undefined");
    case Kind::kNone:
      return ascii("None");
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
      return write_number(*this, value);
    case Kind::kText:
      if (value.is_markup()) ascii("Markup(");
      write_quoted(*this, value.as_text());
      if (value.is_markup()) ascii(")");
      return;
    case Kind::kList:
      if (value.as_list().written != nullptr) *value.as_list().written = true;
      ascii("[");
      write_items(*this, value.as_list().items);
      return ascii("]");
    case Kind::kTuple:
      ascii("(");
      write_items(*this, value.as_list().items);
      return ascii(value.as_list().items.size() == 1 ? ",)" : ")");
    case Kind::kDict: {
      ascii("{");
      bool first = true;
      for (const DictData::Entry& entry : value.as_dict().entries) {
        if (!first) ascii(", ");
        first = false;
        write_repr(entry.key);
        ascii(": ");
        write_repr(entry.value);
      }
      return ascii("}");
    }
    case Kind::kView:
      ascii(value.as_list().type_name);
      ascii("([");
      write_items(*this, value.as_list().items);
      return ascii("])");
    case Kind::kRange: {
      const ListData& range = value.as_list();
      ascii("range(" + std::to_string(range.start) + ", " + std::to_string(range.stop));
      if (range.step != 1) ascii(", " + std::to_string(range.step));
      return ascii(")");
    }
    case Kind::kCallable:
      if (const std::string written = value.as_callable().written(); !written.empty()) {
        return append(decode_text(written));
      }
      break;
    default:
      break;
  }
  fail("a value of type " + type_name(value) + " cannot be written");
}

Value TextBuilder::take(bool markup) { return Value::text(budget_, take_text(), markup); }

Text TextBuilder::take_text() {
  budget_.release(held_);
  held_ = 0;
  return std::move(text_);
}

Text text_of(Budget& budget, const Value& value) {
  TextBuilder out(budget);
  out.write(value);
  return out.take_text();
}

Value to_text_value(Budget& budget, const Value& value) {
  if (value.is(Kind::kText) && !value.is_markup()) return value;
  return Value::text(budget, text_of(budget, value));
}

}  // namespace specdec::chat
