#include "base/error.h"

#include <cstdio>

namespace specdec {

std::string printable(std::string_view text, std::size_t max_bytes) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i == max_bytes) return out + "...";
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte >= 0x20 && byte < 0x7f && byte != '\\') {
      out += static_cast<char>(byte);
    } else {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", byte);
      out += escaped;
    }
  }
  return out;
}

void throw_invalid(const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message);
}

void throw_internal(const char* condition, const char* file, int line) {
  throw Error(ErrorCode::kInternal, std::string("internal error: ") + condition + " is false at " +
                                        file + ":" + std::to_string(line) + "; please report it");
}

}  // namespace specdec
