// A template as a tree.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "chat_template/value.h"

namespace specdec::chat {

enum class ExprKind : std::uint8_t {
  kConst,        // value
  kName,         // name
  kList,         // parts
  kTuple,        // parts
  kDict,         // key, value, key, value, ...
  kAttribute,    // parts[0] . value
  kSubscript,    // parts[0] [ parts[1] ]
  kSlice,        // parts[0..2], each may be null: start, stop, step
  kCall,         // parts[0] ( call )
  kFilter,       // parts[0] | word ( call ); parts[0] is null in `{% filter %}`
  kTest,         // parts[0] is word ( call )
  kNot,          // parts[0]
  kAnd,          // parts[0], parts[1]
  kOr,           //
  kUnary,        // word "+" or "-"
  kBinary,       // word: + - * / // % **
  kConcat,       // parts
  kCompare,      // parts[0] words[0] parts[1] words[1] ...
  kConditional,  // parts: condition, then, else (may be null)
};

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct CallArguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr more_positional, more_named;  // *args, **kwargs
};

struct Expr {
  ExprKind kind = ExprKind::kConst;
  int line = 0;
  int depth = 1;  // of the tree below it
  int name = -1;  // see Names
  std::string word;
  Value value;
  std::vector<ExprPtr> parts;
  std::vector<std::string> words;
  CallArguments call;
};

// What `for`, `set` and `with` assign to.
struct Target {
  int name = -1;
  Value attribute;            // of a namespace: `set name.attribute`; None otherwise
  std::vector<Target> parts;  // several, or one with a comma
  bool is_tuple = false;
};

enum class StmtKind : std::uint8_t {
  kData,         // text
  kOutput,       // exprs
  kIf,           // exprs[i] -> bodies[i]; one more body: else
  kFor,          // targets[0] in exprs[0] if exprs[1]; bodies: each, else
  kSet,          // targets[0] = exprs[0]
  kSetBlock,     // targets[0] = bodies[0] through the filter exprs[0]
  kMacro,        // macro
  kCall,         // exprs[0] (a call) with macro as its caller
  kFilterBlock,  // bodies[0] through exprs[0]
  kWith,         // targets[i] = exprs[i]; bodies[0]
  kScope,        // bodies[0] in a scope of its own
  kBreak,
  kContinue,
};

struct Stmt;
using Body = std::vector<std::unique_ptr<Stmt>>;

struct MacroDefinition {
  std::string name;
  std::vector<int> parameters;
  std::vector<std::string> parameter_names;
  std::vector<ExprPtr> defaults;  // of the last parameters
  Body body;
  bool uses_caller = false, uses_kwargs = false, uses_varargs = false;
};

struct Stmt {
  StmtKind kind = StmtKind::kData;
  int line = 0;
  bool recursive = false;
  int name = -1;  // of a macro
  Value text;
  std::vector<ExprPtr> exprs;
  std::vector<Target> targets;
  std::vector<Body> bodies;
  std::unique_ptr<MacroDefinition> macro;
};

}  // namespace specdec::chat
