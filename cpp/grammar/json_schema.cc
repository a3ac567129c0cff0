#include "grammar/json_schema.h"

#include <algorithm>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "grammar/json_text.h"
#include "grammar/regex.h"
#include "grammar/schema_cases.h"

namespace specdec::grammar {
namespace {

constexpr std::size_t kMaxSchema = std::size_t{1} << 20;  // bytes
constexpr int kMostCount = 1 << 16;                       // items, characters

struct Format {
  std::string_view name, pattern;
};
constexpr std::string_view kDate =
    "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]"
    "|30)|02-(?:0[1-9]|1[0-9]|2[0-8])))";
constexpr std::string_view kTime =
    "(?:(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):["
    "0-5][0-9]))";
constexpr std::string_view kByte = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";

std::string format_pattern(const std::string& name) {
  const std::string date(kDate), time(kTime), byte(kByte);
  if (name == "date") return "^" + date + "$";
  if (name == "time") return "^" + time + "$";
  if (name == "date-time") return "^" + date + "T" + time + "$";
  if (name == "ipv4") return "^" + byte + "(?:\\." + byte + "){3}$";
  if (name == "uuid") return "^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";
  return {};
}

class Compiler {
 public:
  explicit Compiler(const Json& root) : reader_(root), text_(syntax_) {}

  Automaton run(const Json& root) {
    const Rule rule = rule_of(root, "");
    work();
    return make_automaton(syntax_, rule);
  }

 private:
  struct Work {
    Rule rule;
    const Json schema;
    std::string where;
  };
  struct Counts {
    int low, high;
  };

  // Of a schema as it is written: the same one is the same rule, so that schemas may hold
  // themselves.
  Rule rule_of(const Json& schema, const std::string& where) {
    const auto [entry, is_new] = rules_.try_emplace(schema.dump(), 0);
    if (is_new) {
      entry->second = syntax_.add_rule();
      work_.push_back({entry->second, schema, where});
    }
    return entry->second;
  }

  void work() {
    while (!work_.empty()) {
      const Work next = std::move(work_.back());
      work_.pop_back();
      std::vector<Part> parts;
      for (const SchemaCase& one : reader_.cases(next.schema, next.where))
        add_case(one, next.where, parts);
      syntax_.define(next.rule, syntax_.choice(std::move(parts)));
    }
  }

  Part value_of(const Json& schema, const std::string& where) {
    return syntax_.call(rule_of(schema, where));
  }

  void add_case(const SchemaCase& one, const std::string& where, std::vector<Part>& parts) {
    if (const Json* values = one.find("enum")) {
      for (const Json& value : *values->list())
        if (fits(one, value, where)) parts.push_back(text_.literal(value));
      return;
    }
    if (one.allows_type("object")) object(one, where, parts);
    if (one.allows_type("array")) array(one, where, parts);
    if (one.allows_type("string")) string(one, where, parts);
    if (one.allows_type("integer")) number(one, !one.allows_type("number"), parts);
    if (one.allows_type("boolean"))
      parts.insert(parts.end(), {syntax_.text("true"), syntax_.text("false")});
    if (one.allows_type("null")) parts.push_back(syntax_.text("null"));
  }

  // Of a value that is listed: what else the schema says of it.
  bool fits(const SchemaCase& one, const Json& value, const std::string& where) {
    if (!one.allows_type(type_of(value))) return false;
    for (const auto& [name, keyword] : one.keywords) {
      if (name == "enum" || name == "type") continue;
      const bool of_numbers = name.ends_with("imum");
      const bool of_texts = name.ends_with("Length") || name == "pattern" || name == "format";
      if (of_numbers ? !value.number().has_value()
          : of_texts ? value.text() == nullptr
                     : !value.list() && !value.members())
        continue;
      if (of_numbers) {
        const double number = *value.number(), bound = *keyword.number();
        if (name == "minimum"            ? number < bound
            : name == "maximum"          ? number > bound
            : name == "exclusiveMinimum" ? number <= bound
                                         : number >= bound)
          return false;
        continue;
      }
      schema_error(where, quoted(name) + " beside \"enum\" or \"const\" cannot be followed");
    }
    return true;
  }

  Counts counts(const SchemaCase& one, const char* low_name, const char* high_name,
                const std::string& where) const {
    const auto value = [&](const char* name, int none) {
      const Json* found = one.find(name);
      if (found == nullptr) return none;
      if (*found->whole() > kMostCount)
        schema_error(where, quoted(name) + " is followed up to " + std::to_string(kMostCount));
      return static_cast<int>(*found->whole());
    };
    return {value(low_name, 0), value(high_name, kEndless)};
  }

  void string(const SchemaCase& one, const std::string& where, std::vector<Part>& parts) {
    const auto [low, high] = counts(one, "minLength", "maxLength", where);
    const Json* pattern = one.find("pattern");
    const Json* format = one.find("format");
    if (pattern == nullptr && format == nullptr) {
      if (high == kEndless || low <= high) parts.push_back(text_.string(low, high));
      return;
    }
    if ((pattern && format) || low > 0 || high != kEndless)
      schema_error(where,
                   "\"pattern\", \"format\" and lengths of one string cannot be followed at once");
    std::string source;
    if (format) {
      source = format_pattern(*format->text());
      if (source.empty())
        schema_error(where, "\"format\" " + quoted(*format->text()) +
                                " cannot be followed: date, time, date-time, uuid and ipv4 can");
    } else {
      source = *pattern->text();
    }
    const std::string what = "json schema, at #" + where + ": \"pattern\" " + quoted(source);
    const WriteCharacters write = [this](Syntax&, const std::vector<CodeRange>& set) {
      return in_string(set);
    };
    parts.push_back(text_.quoted_part(pattern_part(syntax_, source, what, write)));
  }

  // A character of a set, escaped where JSON wants it.
  Part in_string(const std::vector<CodeRange>& set) {
    std::vector<CodeRange> plain;
    std::vector<Part> choices;
    for (const auto& [first, last] : sorted_ranges(set)) {
      plain.emplace_back(first, last);
      for (char32_t code = first; code <= std::min(last, char32_t{'\\'}); ++code) {
        if (code >= 0x20 && code != '"' && code != '\\') continue;
        std::string written;
        append_utf8(written, code);
        const std::string escaped = quoted(written);
        choices.push_back(syntax_.text(std::string_view(escaped).substr(1, escaped.size() - 2)));
      }
    }
    std::vector<CodeRange> outside = complement(plain);
    outside.insert(outside.end(), {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}});
    const std::vector<CodeRange> inside = complement(outside);
    if (!inside.empty()) choices.push_back(syntax_.characters(inside));
    return syntax_.choice(std::move(choices));
  }

  void number(const SchemaCase& one, bool whole, std::vector<Part>& parts) {
    std::optional<Bound> low, high;
    const auto take = [&](const char* name, bool exclusive, bool is_low,
                          std::optional<Bound>& bound) {
      const Json* found = one.find(name);
      if (found == nullptr) return;
      const Json* other = one.find(is_low ? "minimum" : "maximum");
      // Of two bounds the tighter one holds.
      if (exclusive && other &&
          (is_low ? *other->number() > *found->number() : *other->number() < *found->number()))
        return;
      bound = Bound{decimal_of(*found), exclusive};
    };
    take("minimum", false, true, low);
    take("exclusiveMinimum", true, true, low);
    take("maximum", false, false, high);
    take("exclusiveMaximum", true, false, high);
    parts.push_back(text_.number(whole, low, high));
  }

  void array(const SchemaCase& one, const std::string& where, std::vector<Part>& parts) {
    const auto [low, high] = counts(one, "minItems", "maxItems", where);
    if (high != kEndless && low > high) return;
    const Json* first = one.find("prefixItems");
    const Json* more = one.find("items");
    const JsonList prefix = first ? *first->list() : JsonList{};
    const Part more_value = value_of(more ? *more : Json(true), where + "/items");
    const auto item = [&](std::size_t i) {
      return i < prefix.size() ? value_of(prefix[i], where + "/prefixItems/" + std::to_string(i))
                               : more_value;
    };
    // What may stand behind i items, from the last one back.
    const auto n = std::max(static_cast<int>(prefix.size()), 1);
    Part rest = syntax_.nothing();
    if (high == kEndless || high > n) {
      rest = syntax_.repeat(syntax_.sequence({text_.comma(), more_value}), std::max(low - n, 0),
                            high == kEndless ? high : high - n);
    }
    for (int i = n - 1; i >= 0; --i) {
      if (high != kEndless && i >= high) continue;
      const Part value = item(static_cast<std::size_t>(i));
      rest = i > 0 ? syntax_.sequence({text_.comma(), value, rest})
                   : syntax_.sequence({value, rest, text_.space()});
      if (i >= low) rest = syntax_.optional(rest);
    }
    parts.push_back(syntax_.sequence({syntax_.text("["), text_.space(), rest, syntax_.text("]")}));
  }

  void object(const SchemaCase& one, const std::string& where, std::vector<Part>& parts) {
    const Json* found = one.find("properties");
    const Json* names = one.find("required");
    const Json* more = one.find("additionalProperties");
    JsonMembers properties = found ? *found->members() : JsonMembers{};
    const Json others = more ? *more : Json(true);
    const JsonList required = names ? *names->list() : JsonList{};
    for (const Json& name : required)
      if (found == nullptr || found->find(*name.text()) == nullptr)
        properties.emplace_back(*name.text(), others);

    std::vector<std::string> taken;
    for (const auto& [name, value] : properties) taken.push_back(name);
    const Part other =
        member(text_.other_string(taken), value_of(others, where + "/additionalProperties"));
    // What may stand from property i on: at the beginning, and behind another.
    const Part again = syntax_.sequence({text_.comma(), other});
    Part rest = syntax_.repeat(again, 0, kEndless);
    Part start = syntax_.optional(syntax_.sequence({other, rest}));
    for (std::size_t i = properties.size(); i-- > 0;) {
      const auto& [name, value] = properties[i];
      const Part property =
          member(syntax_.text(quoted(name)), value_of(value, where + "/properties/" + name));
      const bool needed = std::ranges::count(required, Json(name)) > 0;
      const Part then = shared(rest), skipped = shared(start);
      const Part here = syntax_.sequence({property, then});
      start = needed ? here : syntax_.choice({here, skipped});
      const Part behind = syntax_.sequence({text_.comma(), property});
      rest = syntax_.sequence({needed ? behind : syntax_.optional(behind), then});
    }
    const Part spaced = syntax_.sequence({start, text_.space()});
    parts.push_back(
        syntax_.sequence({syntax_.text("{"), text_.space(), spaced, syntax_.text("}")}));
  }

  // A rule of its own: called from two places it is there once.
  Part shared(Part part) {
    const Rule rule = syntax_.add_rule();
    syntax_.define(rule, part);
    return syntax_.call(rule);
  }

  Part member(Part name, Part value) {
    return syntax_.sequence({name, text_.space(), syntax_.text(":"), text_.space(), value});
  }

  SchemaReader reader_;
  Syntax syntax_;
  JsonText text_;
  std::unordered_map<std::string, Rule> rules_;
  std::vector<Work> work_;
};

}  // namespace

Automaton json_schema_automaton(std::string_view schema) {
  if (schema.size() > kMaxSchema) {
    throw_invalid("json schema has " + std::to_string(schema.size()) + " bytes, expected up to " +
                  std::to_string(kMaxSchema));
  }
  require_utf8(schema, "json schema");
  const Json root = parse_json(schema, "json schema");
  return Compiler(root).run(root);
}

}  // namespace specdec::grammar
