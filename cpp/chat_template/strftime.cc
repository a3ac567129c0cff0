// strftime_now(format): the clock as templates of models ask for it.
#include <ctime>

#include "chat_template/builtins.h"

namespace specdec::chat {
namespace {

// What the C library writes for one directive; flags are glibc's: - _ 0 ^ #.
std::string directive(const std::tm& time, const std::string& flags, char letter) {
  constexpr std::string_view kKnown = "aAbBcCdDeFgGhHIjklmMnpPrRStTuUVwWxXyY";
  if (letter == '%') return "%";
  if (letter == 'z' || letter == 'Z') return "";  // a time without zone
  if (kKnown.find(letter) == std::string_view::npos) {
    fail(std::string("strftime_now(): %") + letter + " is not supported");
  }
  char buffer[256];
  const std::string format = "%" + flags + letter;
  const std::size_t n = std::strftime(buffer, sizeof buffer, format.c_str(), &time);
  return std::string(buffer, n);
}

}  // namespace

Value strftime_now(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("strftime_now", arguments, "format");
  const TextView format = bound.text(0);
  const auto seconds = static_cast<std::time_t>(interpreter.clock()());
  std::tm time{};
  if (localtime_r(&seconds, &time) == nullptr) fail("strftime_now(): there is no such time");
  TextBuilder out(interpreter.budget());
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (code_of(format[i]) != '%') {
      out.push(format[i]);
      continue;
    }
    const Unit mark = format[i] & kCallers;
    std::string flags;
    char letter = 0;
    while (letter == 0 && ++i < format.size()) {
      const Unit code = code_of(format[i]);
      const char c = code < 0x80 ? static_cast<char>(code) : '?';
      if (std::string_view("-_0^#").find(c) != std::string_view::npos && flags.size() < 3) {
        flags += c;
      } else {
        letter = c;
      }
    }
    if (letter == 0) fail("strftime_now(): the format ends within a directive");
    interpreter.budget().work(1000);
    out.ascii(directive(time, flags, letter), mark);
  }
  return out.take();
}

}  // namespace specdec::chat
