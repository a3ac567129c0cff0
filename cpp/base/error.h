// The one exception that leaves the library.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace specdec {

// What went wrong, in the caller's terms. Each value maps to one Python class and one exit code.
enum class ErrorCode {
  kInvalidArgument,  // the caller passed something the API forbids       ValueError       exit 2
  kModelFormat,      // a file contradicts its own format                 ModelFormatError exit 3
  kUnsupported,  // valid, but this build does not do it              UnsupportedModelError exit 4
  kResource,     // memory or another resource ran out                ResourceLimitError exit 5
  kContextFull,  // the KV cache has no room for the next token       ContextFullError exit 5
  kIo,           // the operating system refused a file operation     OSError exit 3
  kBusy,         // an object that is not thread-safe was used twice at once
  kClosed,       // an object was used after close()
  kCancelled,    // the caller asked to stop
  kNumerical,    // logits are not finite
  kDevice,       // a CUDA call failed
  kInternal,     // a broken invariant: our bug, never the input's
};

// Where a file went wrong; empty members are unknown.
struct ErrorDetail {
  std::string reason;  // stable short name, e.g. "count_exceeds_file"
  std::string path;
  std::string key;                      // metadata key
  std::string tensor;                   // tensor name
  std::optional<std::uint64_t> offset;  // byte offset in the file
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  Error(ErrorCode code, const std::string& message, ErrorDetail detail)
      : std::runtime_error(message), code_(code), detail_(std::move(detail)) {}

  [[nodiscard]] ErrorCode code() const noexcept { return code_; }
  [[nodiscard]] const ErrorDetail& detail() const noexcept { return detail_; }

 private:
  ErrorCode code_;
  ErrorDetail detail_;
};

// Text that came from a file or a caller, safe to print: control bytes and non-ASCII become \xNN,
// cut after `max_bytes`.
[[nodiscard]] std::string printable(std::string_view text, std::size_t max_bytes = 128);

[[noreturn]] void throw_invalid(const std::string& message);
[[noreturn]] void throw_internal(const char* condition, const char* file, int line);

}  // namespace specdec

// Our own invariants only; never for input.
#define SPECDEC_CHECK(condition)                                                 \
  do {                                                                           \
    if (!(condition)) ::specdec::throw_internal(#condition, __FILE__, __LINE__); \
  } while (false)
