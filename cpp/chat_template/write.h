// str() and repr() of values, and text that grows within the budget.
#pragma once

#include <string>
#include <string_view>

#include "chat_template/value.h"

namespace specdec::chat {

// Text under construction: each part is charged before it is added.
class TextBuilder {
 public:
  explicit TextBuilder(Budget& budget) : budget_(budget) {}
  TextBuilder(const TextBuilder&) = delete;
  TextBuilder& operator=(const TextBuilder&) = delete;
  ~TextBuilder() { budget_.release(held_); }

  // Before so many characters are added by any way.
  void expect(std::size_t n) {
    budget_.work(n);
    if (text_.size() + n > held_ / sizeof(Unit)) hold(n);
  }
  void push(Unit unit) {
    expect(1);
    text_.push_back(unit);
  }
  void append(TextView text) {
    expect(text.size());
    text_.append(text);
  }
  void ascii(std::string_view text, Unit mark = 0) {
    expect(text.size());
    append_ascii(text_, text, mark);
  }
  void repeat(Unit unit, std::size_t n) {
    expect(n);
    text_.append(n, unit);
  }
  // str() of a value.
  void write(const Value& value);
  // repr() of a value.
  void write_repr(const Value& value);

  [[nodiscard]] Budget& budget() const noexcept { return budget_; }
  [[nodiscard]] std::size_t size() const noexcept { return text_.size(); }
  [[nodiscard]] TextView view() const noexcept { return text_; }
  [[nodiscard]] Value take(bool markup = false);
  [[nodiscard]] Text take_text();

 private:
  void hold(std::size_t n);

  Budget& budget_;
  Text text_;
  std::size_t held_ = 0;
};

[[nodiscard]] Text text_of(Budget& budget, const Value& value);         // str()
[[nodiscard]] Value to_text_value(Budget& budget, const Value& value);  // str(), without a copy

// As Python writes floats: the shortest digits that read back, "1e+16", "inf".
[[nodiscard]] std::string float_text(double number);

}  // namespace specdec::chat
