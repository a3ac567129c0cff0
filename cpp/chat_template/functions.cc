// Global functions.
#include "chat_template/builtins.h"
#include "chat_template/objects.h"

namespace specdec::chat {
namespace {

constexpr std::int64_t kMaxRange = 100'000;  // as in jinja's sandbox

Value range(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("range", arguments, "start | stop step");
  std::int64_t start = 0, stop = bound.integer(0);
  if (bound.get(1) != nullptr) {
    start = stop;
    stop = bound.integer(1);
  }
  const std::int64_t step = bound.integer(2, 1);
  if (step == 0) fail("range() arg 3 must not be zero");
  // In long double, where the difference cannot overflow.
  const long double span = (static_cast<long double>(stop) - static_cast<long double>(start)) /
                           static_cast<long double>(step);
  if (span > static_cast<long double>(kMaxRange)) {
    fail("Range too big. The sandbox blocks ranges larger than MAX_RANGE (" +
         std::to_string(kMaxRange) + ").");
  }
  // With few elements, steps and bounds that could overflow stand for an equal small range.
  constexpr std::int64_t kFar = std::int64_t{1} << 60;
  for (const std::int64_t number : {start, stop, step}) {
    if (number > kFar || number < -kFar) fail("range() takes numbers below 2**60 here");
  }
  return Value::range(interpreter.budget(), start, stop, step);
}

// dict(mapping_or_pairs, name=value, ...)
Ref<DictData> dict_of(Interpreter& interpreter, const char* name, const Arguments& arguments) {
  Budget& budget = interpreter.budget();
  const Ref<DictData> dict = make_heap<DictData>(budget);
  if (arguments.positional.size() > 1) {
    fail(std::string(name) + " expected at most 1 argument, got " +
         std::to_string(arguments.positional.size()));
  }
  if (!arguments.positional.empty()) {
    const Value& from = arguments.positional[0];
    if (from.is(Kind::kDict)) {
      for (const DictData::Entry& entry : from.as_dict().entries) dict->set(entry.key, entry.value);
    } else {
      for (const Value& pair : iterate(budget, from)) {
        const Values parts = iterate(budget, pair);
        if (parts.size() != 2) {
          fail("dictionary update sequence element has length " + std::to_string(parts.size()) +
               "; 2 is required");
        }
        dict->set(parts[0], parts[1]);
      }
    }
  }
  for (const auto& [key, value] : arguments.named) {
    dict->set(Value::text(budget, decode_text(key)), value);
  }
  return dict;
}

Value dict(Interpreter& interpreter, Arguments& arguments) {
  return Value::dict(dict_of(interpreter, "dict", arguments));
}

Value namespace_(Interpreter& interpreter, Arguments& arguments) {
  const Value made = make_namespace(interpreter.budget(), interpreter.new_namespace());
  const Ref<DictData> given = dict_of(interpreter, "namespace", arguments);
  for (const DictData::Entry& entry : given->entries) {
    if (!entry.key.is(Kind::kText)) fail("namespace() takes names, not " + type_name(entry.key));
    (void)made.as_object().set(to_bytes(entry.key.as_text()), entry.value);
  }
  return made;
}

Value cycler(Interpreter& interpreter, Arguments& arguments) {
  if (!arguments.named.empty()) fail("cycler() takes no keyword arguments");
  if (arguments.positional.empty()) fail("at least one item has to be provided");
  return make_cycler(interpreter.budget(), std::move(arguments.positional));
}

Value joiner(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("joiner", arguments, "| sep");
  return make_joiner(interpreter.budget(),
                     bound.get(0) != nullptr ? bound[0] : Value::ascii(interpreter.budget(), ", "));
}

Value raise_exception(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("raise_exception", arguments, "message");
  const Text message = text_of(interpreter.budget(), bound[0]);
  throw TemplateError(Problem::kRefused, to_bytes(TextView(message).substr(0, 1000)));
}

Value lipsum(Interpreter&, Arguments&) { fail("lipsum() is not supported: its text is random"); }

constexpr NamedBuiltin kTable[] = {
    {"cycler", cycler},        {"dict", dict},
    {"joiner", joiner},        {"lipsum", lipsum},
    {"namespace", namespace_}, {"raise_exception", raise_exception},
    {"range", range},          {"strftime_now", strftime_now},
};

}  // namespace

std::span<const NamedBuiltin> global_functions() { return kTable; }

}  // namespace specdec::chat
