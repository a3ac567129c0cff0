// Numbers within bounds, digit by digit.
#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "grammar/json_text.h"

namespace specdec::grammar {
namespace {

// -1, 0, 1: how a compares with b, as magnitudes.
int compare(const Decimal& a, const Decimal& b) {
  if (a.whole.size() != b.whole.size()) return a.whole.size() < b.whole.size() ? -1 : 1;
  if (a.whole != b.whole) return a.whole < b.whole ? -1 : 1;
  return a.fraction == b.fraction ? 0 : a.fraction < b.fraction ? -1 : 1;
}

std::optional<Bound> mirrored(const std::optional<Bound>& bound) {
  if (!bound) return std::nullopt;
  Bound out = *bound;
  out.value.negative = !out.value.negative;
  return out;
}

}  // namespace

Decimal decimal_of(const Json& number) {
  Decimal out;
  std::string text;
  if (const std::int64_t* whole = number.whole()) {
    text = std::to_string(*whole);
  } else {
    std::array<char, 400> buffer{};
    const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(),
                                   number.number().value_or(0), std::chars_format::fixed);
    text.assign(buffer.data(), end.ptr);
  }
  out.negative = text[0] == '-';
  if (out.negative) text.erase(0, 1);
  const std::size_t point = std::min(text.find('.'), text.size());
  out.whole = text.substr(0, point);
  if (point < text.size()) out.fraction = text.substr(point + 1);
  while (out.fraction.ends_with('0')) out.fraction.pop_back();
  if (out.is_zero()) out.negative = false;
  return out;
}

Part JsonText::digits(int low, int high) {
  return syntax_.repeat(syntax_.bytes(byte_range('0', '9')), low, high);
}

namespace {

// The digits of a number between two others, read one by one: `low` and `high` tell whether those
// before were the bound's own. Numbers of `n` digits before the point.
class DigitsBetween {
 public:
  DigitsBetween(Syntax& syntax, std::size_t n, bool whole, const Bound* low, const Bound* high)
      : syntax_(syntax), n_(n), whole_(whole), low_(low), high_(high) {}

  Part run() { return from(0, low_ != nullptr, high_ != nullptr); }

 private:
  [[nodiscard]] static char digit(const Bound& bound, std::size_t i) {
    const std::string digits = bound.value.whole + bound.value.fraction;
    return i < digits.size() ? digits[i] : '0';
  }
  [[nodiscard]] static bool is_end(const Bound& bound, std::size_t i) {
    return i >= bound.value.whole.size() + bound.value.fraction.size();
  }

  // Whether the text may stop before digit i: what it lacks are zeros.
  [[nodiscard]] bool may_stop(std::size_t i, bool low, bool high) const {
    if (low && (!is_end(*low_, i) || low_->exclusive)) return false;
    return !(high && is_end(*high_, i) && high_->exclusive);
  }

  // Digits from i on.
  Part from(std::size_t i, bool low, bool high) {
    if (i < n_) return next(i, low, high);
    std::vector<Part> choices;
    if (may_stop(i, low, high)) choices.push_back(syntax_.nothing());
    if (!whole_) {
      const Part rest = next(i, low, high);
      choices.push_back(i == n_ ? syntax_.sequence({syntax_.text("."), rest}) : rest);
    }
    return syntax_.choice(std::move(choices));
  }

  // A digit and what follows. Without bounds left: any.
  Part next(std::size_t i, bool low, bool high) {
    if (!low && !high) return i < n_ ? whole_rest(i) : any_fraction(1);
    // Behind both bounds' last digits nothing but zeros is the same place again.
    if (i >= n_ && (!low || is_end(*low_, i)) && (!high || is_end(*high_, i)))
      return endless(i, low, high);
    const char first = low ? digit(*low_, i) : '0', last = high ? digit(*high_, i) : '9';
    const char least = i == 0 && n_ > 1 ? '1' : '0';
    std::vector<Part> choices;
    const auto add = [&](char a, char b, bool with_low, bool with_high) {
      a = std::max(a, least);
      if (a > b) return;
      choices.push_back(syntax_.sequence(
          {syntax_.bytes(byte_range(static_cast<unsigned char>(a), static_cast<unsigned char>(b))),
           from(i + 1, with_low, with_high)}));
    };
    if (first > last) return syntax_.choice({});
    if (low && high && first == last) {
      add(first, first, true, true);
      return syntax_.choice(std::move(choices));
    }
    const char inner_first = static_cast<char>(first + (low ? 1 : 0));
    const char inner_last = static_cast<char>(last - (high ? 1 : 0));
    if (low) add(first, first, true, false);
    add(inner_first, inner_last, false, false);
    if (high) add(last, last, false, true);
    return syntax_.choice(std::move(choices));
  }

  // One digit or more behind all digits of the bounds that still hold.
  Part endless(std::size_t i, bool low, bool high) {
    const Part zeros = syntax_.repeat(syntax_.text("0"), 1, kEndless);
    if (high) return may_stop(i, low, high) ? zeros : syntax_.choice({});
    if (low && low_->exclusive) {
      return syntax_.sequence({syntax_.repeat(syntax_.text("0"), 0, kEndless),
                               syntax_.bytes(byte_range('1', '9')), any_fraction(0)});
    }
    return any_fraction(1);
  }

  Part any_fraction(int least) {
    return syntax_.repeat(syntax_.bytes(byte_range('0', '9')), least, kEndless);
  }

  // All digits are free from i on, i < n.
  Part whole_rest(std::size_t i) {
    std::vector<Part> parts;
    if (i == 0 && n_ > 1) {
      parts.push_back(syntax_.bytes(byte_range('1', '9')));
      ++i;
    }
    const auto left = static_cast<int>(n_ - i);
    parts.push_back(syntax_.repeat(syntax_.bytes(byte_range('0', '9')), left, left));
    if (!whole_) {
      parts.push_back(syntax_.optional(syntax_.sequence({syntax_.text("."), any_fraction(1)})));
    }
    return syntax_.sequence(std::move(parts));
  }

  Syntax& syntax_;
  std::size_t n_;
  bool whole_;
  const Bound* low_;
  const Bound* high_;
};

}  // namespace

Part JsonText::of_length(std::size_t n, bool whole, const std::optional<Bound>& low,
                         const std::optional<Bound>& high) {
  const Bound* from = low && low->value.whole.size() == n ? &*low : nullptr;
  const Bound* to = high && high->value.whole.size() == n ? &*high : nullptr;
  return DigitsBetween(syntax_, n, whole, from, to).run();
}

Part JsonText::magnitude(bool whole, const std::optional<Bound>& low,
                         const std::optional<Bound>& high) {
  std::vector<Part> choices;
  if (low && high) {
    const int order = compare(low->value, high->value);
    if (order > 0 || (order == 0 && (low->exclusive || high->exclusive))) return syntax_.choice({});
  }
  const std::size_t shortest = low ? low->value.whole.size() : 1;
  // Beyond the longest bound all numbers are alike.
  const std::size_t longest = high ? high->value.whole.size() : shortest;
  for (std::size_t n = shortest; n <= longest; ++n)
    choices.push_back(of_length(n, whole, low, high));
  if (!high) {
    std::vector<Part> parts = {syntax_.bytes(byte_range('1', '9')),
                               digits(static_cast<int>(longest), kEndless)};
    if (!whole)
      parts.push_back(syntax_.optional(syntax_.sequence({syntax_.text("."), digits(1, kEndless)})));
    choices.push_back(syntax_.sequence(std::move(parts)));
  }
  return syntax_.choice(std::move(choices));
}

Part JsonText::number(bool whole, const std::optional<Bound>& low,
                      const std::optional<Bound>& high) {
  if (!low && !high) {
    const Part sign = syntax_.optional(syntax_.text("-"));
    const Part body = syntax_.choice(
        {syntax_.text("0"),
         syntax_.sequence({syntax_.bytes(byte_range('1', '9')), digits(0, kEndless)})});
    if (whole) return syntax_.sequence({sign, body});
    const Part exponent =
        syntax_.sequence({syntax_.bytes(byte_set("eE")),
                          syntax_.optional(syntax_.bytes(byte_set("+-"))), digits(1, kEndless)});
    return syntax_.sequence(
        {sign, body, syntax_.optional(syntax_.sequence({syntax_.text("."), digits(1, kEndless)})),
         syntax_.optional(exponent)});
  }
  std::vector<Part> choices;
  // From `low` or 0 up to `high`; and below 0 the same seen in a mirror.
  const Bound zero{};
  if (!high || !high->value.negative) {
    const bool above = low && !low->value.negative;
    choices.push_back(magnitude(whole, above ? low : std::optional(zero), high));
  }
  if (!low || low->value.negative) {
    const bool below = high && high->value.negative;
    std::optional<Bound> least = below ? mirrored(high) : std::optional(zero);
    if (!below) least->exclusive = true;  // no -0
    choices.push_back(
        syntax_.sequence({syntax_.text("-"), magnitude(whole, least, mirrored(low))}));
  }
  return syntax_.choice(std::move(choices));
}

}  // namespace specdec::grammar
