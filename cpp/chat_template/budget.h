// What one rendering may still use: counted work and live memory, never the clock.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "base/error.h"

namespace specdec::chat {

// Why a template gave no text.
enum class Problem {
  kSyntax,   // it is no template
  kRefused,  // it called raise_exception()
  kFailed,   // an operation that Python refuses, or that this interpreter does not know
  kLimit,    // it exceeded what it may use
  kMissing,  // the file has none
};

// Error::detail().reason is "syntax", "refused", "failed", "limit" or "missing".
class TemplateError : public Error {
 public:
  TemplateError(Problem problem, const std::string& message);
  [[nodiscard]] Problem problem() const noexcept { return problem_; }

 private:
  Problem problem_;
};

struct Limits {
  // A unit is about a nanosecond: a character copied or compared is one, a step of the interpreter
  // kStepWork.
  std::uint64_t work = 400'000'000;
  std::uint64_t memory_bytes = std::uint64_t{192} << 20;  // of values that live at the same time
};

inline constexpr std::uint64_t kStepWork = 40;
inline constexpr std::uint64_t kAllocationWork = 80;  // of a value, and its release

class Budget {
 public:
  // `should_cancel` is asked every few milliseconds of work; true throws Error(kCancelled).
  explicit Budget(const Limits& limits, std::function<bool()> should_cancel = {});
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  // Before the work is done. Throws TemplateError(kLimit).
  void work(std::uint64_t n) {
    if (n > left_) more(n);
    left_ -= n;
  }
  void step() { work(kStepWork); }
  // Before n bytes are allocated, and after they were released.
  void hold(std::size_t n) {
    if (n > limits_.memory_bytes - held_) too_much_memory();
    held_ += n;
    highest_ = std::max(highest_, held_);
  }
  void release(std::size_t n) noexcept { held_ -= n; }

  [[nodiscard]] std::uint64_t work_done() const noexcept { return granted_ - left_; }
  [[nodiscard]] std::size_t held_bytes() const noexcept { return held_; }
  [[nodiscard]] std::size_t highest_bytes() const noexcept { return highest_; }

 private:
  void more(std::uint64_t n);
  [[noreturn]] void too_much_memory() const;

  Limits limits_;
  std::function<bool()> should_cancel_;
  std::uint64_t left_ = 0;     // of what was granted
  std::uint64_t granted_ = 0;  // in slices, so that should_cancel is asked between them
  std::uint64_t held_ = 0, highest_ = 0;
};

}  // namespace specdec::chat
