#include "grammar/schema_cases.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"

namespace specdec::grammar {
namespace {

constexpr std::size_t kMaxCases = 512;
constexpr std::size_t kMaxOpen = 200;  // references in references

// Say nothing about what fits.
constexpr std::array<std::string_view, 20> kNotes = {"title",
                                                     "description",
                                                     "default",
                                                     "example",
                                                     "examples",
                                                     "$schema",
                                                     "$id",
                                                     "id",
                                                     "$comment",
                                                     "$anchor",
                                                     "deprecated",
                                                     "readOnly",
                                                     "writeOnly",
                                                     "$defs",
                                                     "definitions",
                                                     "contentEncoding",
                                                     "contentMediaType",
                                                     "discriminator",
                                                     "name",
                                                     "strict"};
constexpr std::array<std::string_view, 18> kFollowed = {
    "type",    "enum",        "const",    "properties", "required",         "additionalProperties",
    "items",   "prefixItems", "minItems", "maxItems",   "minLength",        "maxLength",
    "pattern", "format",      "minimum",  "maximum",    "exclusiveMinimum", "exclusiveMaximum"};
// Keywords that allow everything.
bool rules_nothing_out(const std::string& name, const Json& value) {
  const bool* truth = value.boolean();
  const std::int64_t* whole = value.whole();
  const bool empty =
      (value.members() && value.members()->empty()) || (value.list() && value.list()->empty());
  if (name == "uniqueItems") return truth && !*truth;
  if (name == "minProperties" || name == "minContains") return whole && *whole == 0;
  return (name == "patternProperties" || name == "dependentRequired" ||
          name == "dependentSchemas" || name == "propertyNames") &&
         empty;
}

std::string escaped(std::string_view name) {
  std::string out;
  for (const char c : name) out += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return out;
}

}  // namespace

JsonList list_or_one(const Json& value) { return value.list() ? *value.list() : JsonList{value}; }

void schema_error(const std::string& where, const std::string& problem) {
  throw_invalid("json schema, at #" + where + ": " + problem);
}

std::string type_of(const Json& value) {
  if (value.is_null()) return "null";
  if (value.boolean()) return "boolean";
  if (value.whole()) return "integer";
  if (value.number()) return "number";
  if (value.text()) return "string";
  return value.list() ? "array" : "object";
}

bool SchemaCase::allows_type(std::string_view type) const {
  const Json* types = find("type");
  if (types == nullptr) return true;
  return std::ranges::any_of(list_or_one(*types), [&](const Json& allowed) {
    return *allowed.text() == type || (*allowed.text() == "number" && type == "integer");
  });
}

const Json& SchemaReader::target(const std::string& reference, const std::string& where) const {
  if (!reference.starts_with("#"))
    schema_error(where, "\"$ref\" can only name a part of the schema itself, #/..., not " +
                            quoted(reference));
  const Json* at = &root_;
  std::string_view rest = std::string_view(reference).substr(1);
  while (!rest.empty()) {
    if (rest[0] != '/')
      schema_error(where, "\"$ref\" " + quoted(reference) + " must be like #/$defs/name");
    rest.remove_prefix(1);
    const std::string_view step = rest.substr(0, rest.find('/'));
    rest.remove_prefix(step.size());
    const Json* next = nullptr;
    if (at->members()) {
      for (const auto& [name, value] : *at->members())
        if (escaped(name) == step) next = &value;
    } else if (at->list()) {
      for (std::size_t i = 0; i < at->list()->size(); ++i)
        if (std::to_string(i) == step) next = &(*at->list())[i];
    }
    if (next == nullptr)
      schema_error(where, "\"$ref\" " + quoted(reference) + ": there is no such part");
    at = next;
  }
  return *at;
}

SchemaCase SchemaReader::plain_keywords(const JsonMembers& members, const std::string& where) {
  SchemaCase out;
  building_ = &out;
  for (const auto& [name, value] : members) {
    if (std::ranges::count(kNotes, name) > 0 || name.starts_with("x-")) continue;
    if (name == "anyOf" || name == "oneOf" || name == "allOf" || name == "$ref") continue;
    if (std::ranges::count(kFollowed, name) == 0) {
      if (rules_nothing_out(name, value)) continue;
      schema_error(
          where, quoted(name) + " cannot be followed; leave it out and check the text afterwards");
    }
    if (name == "const") {
      merge_keyword(out, "enum", JsonList{value}, where);
    } else {
      merge_keyword(out, name, value, where);
    }
  }
  building_ = nullptr;
  return out;
}

std::vector<SchemaCase> SchemaReader::cases(const Json& schema, const std::string& where) {
  if (const bool* truth = schema.boolean()) return *truth ? Cases{{}} : Cases{};
  const JsonMembers* members = schema.members();
  if (members == nullptr)
    schema_error(where, "a schema is an object, true or false, not " + type_of(schema));
  Cases out = {plain_keywords(*members, where)};
  for (const auto& [name, value] : *members) {
    if (name == "$ref") {
      if (!value.text()) schema_error(where, "\"$ref\" must be a text");
      if (std::ranges::count(open_references_, *value.text()) > 0 ||
          open_references_.size() > kMaxOpen)
        schema_error(where,
                     "\"$ref\" " + quoted(*value.text()) + " refers to itself and to nothing else");
      open_references_.push_back(*value.text());
      out = combined(out, cases(target(*value.text(), where), value.text()->substr(1)), where);
      open_references_.pop_back();
    }
    if (name != "anyOf" && name != "oneOf" && name != "allOf") continue;
    if (!value.list() || value.list()->empty())
      schema_error(where, quoted(name) + " must be a list of schemas");
    std::vector<Cases> options;
    for (std::size_t i = 0; i < value.list()->size(); ++i)
      options.push_back(cases((*value.list())[i], where + "/" + name + "/" + std::to_string(i)));
    if (name == "allOf") {
      for (const Cases& option : options) out = combined(out, option, where);
      continue;
    }
    if (name == "oneOf") check_disjoint(options, where);
    Cases any;
    for (const Cases& option : options) any.insert(any.end(), option.begin(), option.end());
    out = combined(out, any, where);
  }
  return out;
}

SchemaReader::Cases SchemaReader::combined(const Cases& a, const Cases& b,
                                           const std::string& where) {
  Cases out;
  for (const SchemaCase& one : a) {
    for (const SchemaCase& other : b) {
      SchemaCase merged;
      if (!merge(one, other, where, merged)) continue;
      out.push_back(std::move(merged));
      if (out.size() > kMaxCases)
        schema_error(where, "over " + std::to_string(kMaxCases) + " combinations of alternatives");
    }
  }
  return out;
}

bool SchemaReader::merge(const SchemaCase& a, const SchemaCase& b, const std::string& where,
                         SchemaCase& merged) {
  merged = a;
  for (const auto& [name, value] : b.keywords)
    if (name != "properties" && name != "additionalProperties")
      merge_keyword(merged, name, value, where);
  merge_properties(a, b, merged);
  const Json* types = merged.find("type");
  const Json* values = merged.find("enum");
  return !(types && types->list() && types->list()->empty()) &&
         !(values && values->list()->empty());
}

// A property that only one of them names is one of the other's additional ones.
void SchemaReader::merge_properties(const SchemaCase& a, const SchemaCase& b,
                                    SchemaCase& merged) const {
  const auto properties = [](const SchemaCase& part) {
    const Json* found = part.find("properties");
    return found ? *found->members() : JsonMembers{};
  };
  const auto both = [](const Json* x, const Json* y) -> Json {
    if (x == nullptr || y == nullptr) return x ? *x : y ? *y : Json(true);
    if (*x == *y) return *x;
    return JsonMembers{{"allOf", JsonList{*x, *y}}};
  };
  const JsonMembers of_a = properties(a), of_b = properties(b);
  const Json* more_a = a.find("additionalProperties");
  const Json* more_b = b.find("additionalProperties");
  JsonMembers out;
  for (const auto& [name, value] : of_a) {
    const Json* other = b.find("properties") ? b.find("properties")->find(name) : nullptr;
    out.emplace_back(name, both(&value, other ? other : more_b));
  }
  for (const auto& [name, value] : of_b) {
    if (a.find("properties") && a.find("properties")->find(name)) continue;
    out.emplace_back(name, both(&value, more_a));
  }
  if (!out.empty()) merged.keywords.insert_or_assign("properties", out);
  if (more_a || more_b)
    merged.keywords.insert_or_assign("additionalProperties", both(more_a, more_b));
}

}  // namespace specdec::grammar
