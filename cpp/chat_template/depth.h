// Counts how deep the interpreter is in itself: the stack is bounded, whatever a template does.
#pragma once

#include "chat_template/interpreter.h"

namespace specdec::chat {

inline constexpr int kMaxDepth = 1500;

class Interpreter::Depth {
 public:
  explicit Depth(Interpreter& interpreter) : interpreter_(interpreter) {
    interpreter.budget_.step();
    if (++interpreter.depth_ > kMaxDepth) {
      --interpreter.depth_;
      throw TemplateError(Problem::kLimit, "it calls itself too deeply");
    }
  }
  ~Depth() { --interpreter_.depth_; }
  Depth(const Depth&) = delete;
  Depth& operator=(const Depth&) = delete;

 private:
  Interpreter& interpreter_;
};

}  // namespace specdec::chat
