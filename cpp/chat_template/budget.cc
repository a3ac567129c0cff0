#include "chat_template/budget.h"

namespace specdec::chat {
namespace {

constexpr std::uint64_t kSlice = 4'000'000;

ErrorCode code_of_problem(Problem problem) {
  return problem == Problem::kRefused ? ErrorCode::kInvalidArgument : ErrorCode::kUnsupported;
}

const char* reason_of(Problem problem) {
  switch (problem) {
    case Problem::kSyntax:
      return "syntax";
    case Problem::kRefused:
      return "refused";
    case Problem::kFailed:
      return "failed";
    case Problem::kLimit:
      return "limit";
    case Problem::kMissing:
      return "missing";
  }
  return "failed";
}

ErrorDetail detail_of(Problem problem) {
  ErrorDetail detail;
  detail.reason = reason_of(problem);
  return detail;
}

}  // namespace

TemplateError::TemplateError(Problem problem, const std::string& message)
    : Error(code_of_problem(problem), message, detail_of(problem)), problem_(problem) {}

Budget::Budget(const Limits& limits, std::function<bool()> should_cancel)
    : limits_(limits), should_cancel_(std::move(should_cancel)) {}

void Budget::more(std::uint64_t n) {
  if (should_cancel_ && should_cancel_()) {
    throw Error(ErrorCode::kCancelled, "the rendering of the chat template was cancelled");
  }
  const std::uint64_t missing = n - left_, rest = limits_.work - granted_;
  if (missing > rest) {
    throw TemplateError(Problem::kLimit, "the chat template does more work than it may (" +
                                             std::to_string(limits_.work) + " units)");
  }
  const std::uint64_t slice = std::max(missing, std::min(kSlice, rest));
  granted_ += slice;
  left_ += slice;
}

void Budget::too_much_memory() const {
  throw TemplateError(Problem::kLimit, "the chat template needs more memory than it may (" +
                                           std::to_string(limits_.memory_bytes >> 20) + " MiB)");
}

}  // namespace specdec::chat
