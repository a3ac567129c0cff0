// Runs a template's tree.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "chat_template/ast.h"
#include "chat_template/callable.h"
#include "chat_template/names.h"
#include "chat_template/write.h"

namespace specdec::chat {

// The variables of a loop's pass, a macro or a block, and of what is around it.
struct Scope : Heap {
  Scope(Budget& budget, Ref<Scope> around) : Heap(budget, 96), parent(std::move(around)) {}
  Ref<Scope> parent;
  std::vector<std::pair<int, Value>> variables;
};

// What a namespace holds, and what a macro can see: these may hold each other in circles, so the
// interpreter owns them.
struct NamespaceState {
  std::vector<std::pair<std::string, Value>> variables;
};
struct MacroState {
  const MacroDefinition* definition = nullptr;
  Ref<Scope> scope;
};
struct LoopState {
  Values items;  // empty when the loop has ended
  std::int64_t length = 0, index0 = 0, depth0 = 0;
  std::optional<Value> changed;
  const Stmt* recursive = nullptr;  // while it runs
  Scope* scope = nullptr;           // around it, while it runs
};

class Interpreter {
 public:
  // Local time as seconds since 1970, for strftime_now().
  using Clock = std::function<std::int64_t()>;

  Interpreter(Budget& budget, Names& names, Clock clock);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  [[nodiscard]] Budget& budget() const noexcept { return budget_; }
  [[nodiscard]] const Clock& clock() const noexcept { return clock_; }
  [[nodiscard]] int line() const noexcept { return line_; }

  void set_global(const std::string& name, Value value);
  [[nodiscard]] Text run(const Body& body);

  // object.name and object[index], as jinja looks them up.
  [[nodiscard]] Value attribute(const Value& object, const Value& name);
  [[nodiscard]] Value subscript(const Value& object, const Value& index);
  // "a.b.0", as filters take it; `otherwise` stands for each part that is undefined.
  [[nodiscard]] Value attribute_path(const Value& object, const Value& path,
                                     const Value* otherwise = nullptr);
  [[nodiscard]] Value call(const Value& callee, Arguments& arguments);
  [[nodiscard]] Value call_macro(const MacroState& macro, Arguments& arguments);
  [[nodiscard]] Value call_filter(std::string_view name, Arguments& arguments);
  [[nodiscard]] bool call_test(std::string_view name, Arguments& arguments);
  [[nodiscard]] Value recurse(const LoopState& loop, const Value& items);

  NamespaceState& new_namespace();

 private:
  enum class Flow { kNormal, kBreak, kContinue };
  class Depth;

  // evaluate.cc
  [[nodiscard]] Value evaluate(const Expr& expr);
  [[nodiscard]] Value lookup(const Expr& expr);
  [[nodiscard]] Values evaluate_all(const std::vector<ExprPtr>& parts);
  [[nodiscard]] Value evaluate_dict(const Expr& expr);
  [[nodiscard]] Value evaluate_subscript(const Expr& expr);
  [[nodiscard]] Value evaluate_call(const Expr& expr);
  [[nodiscard]] Value evaluate_filter(const Expr& expr, const Value* input);
  [[nodiscard]] Value evaluate_test(const Expr& expr);
  [[nodiscard]] Value evaluate_concat(const Expr& expr);
  [[nodiscard]] Value evaluate_compare(const Expr& expr);
  [[nodiscard]] Value evaluate_conditional(const Expr& expr);
  void evaluate_arguments(const CallArguments& call, Arguments& out);
  [[nodiscard]] bool compare(const std::string& op, const Value& a, const Value& b);

  // execute.cc
  Flow execute(const Body& body, TextBuilder& out);
  Flow execute(const Stmt& stmt, TextBuilder& out);
  Flow execute_if(const Stmt& stmt, TextBuilder& out);
  Flow execute_for(const Stmt& stmt, TextBuilder& out);
  Flow execute_loop(const Stmt& stmt, Values items, std::int64_t depth0, TextBuilder& out);
  [[nodiscard]] Values filtered(const Stmt& stmt, Values items);
  Flow execute_block(const Stmt& stmt, TextBuilder& out);
  void execute_macro(const Stmt& stmt);
  void execute_call(const Stmt& stmt, TextBuilder& out);
  Flow execute_with(const Stmt& stmt, TextBuilder& out);
  void assign(const Target& target, const Value& value);
  void set_variable(int name, Value value);
  Ref<Scope> enter();
  MacroState& new_macro(const MacroDefinition& definition);

  Budget& budget_;
  Names& names_;
  Clock clock_;
  std::vector<std::pair<int, Value>> globals_;
  std::vector<std::unique_ptr<NamespaceState>> namespaces_;
  std::vector<std::unique_ptr<MacroState>> macros_;
  std::vector<std::unique_ptr<LoopState>> loops_;
  Ref<Scope> scope_;
  int loop_name_, caller_name_, kwargs_name_, varargs_name_;
  int depth_ = 0;
  int line_ = 0;
};

}  // namespace specdec::chat
