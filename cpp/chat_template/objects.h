// jinja's own objects: loop, namespace, macros, cycler, joiner.
#pragma once

#include "chat_template/interpreter.h"

namespace specdec::chat {

[[nodiscard]] Value make_loop(Budget& budget, LoopState& state);
[[nodiscard]] Value make_macro(Budget& budget, MacroState& state);
[[nodiscard]] Value make_namespace(Budget& budget, NamespaceState& state);
[[nodiscard]] Value make_cycler(Budget& budget, Values items);
[[nodiscard]] Value make_joiner(Budget& budget, Value separator);
// A function of the interpreter, and a method with the value it belongs to.
[[nodiscard]] Value make_function(Budget& budget, Value (*run)(Interpreter&, Arguments&));
[[nodiscard]] Value make_method(Budget& budget, Value self, Value (*run)(Interpreter&, Arguments&));

}  // namespace specdec::chat
