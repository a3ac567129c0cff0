// What keywords mean together: two of one name, and two cases that nothing fits at once.
#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "grammar/schema_cases.h"

namespace specdec::grammar {
namespace {

constexpr std::array<std::string_view, 7> kTypes = {"null",   "boolean", "number", "integer",
                                                    "string", "array",   "object"};
constexpr int kDeepest = 4;

void check_type(const Json& value, const std::string& where) {
  for (const Json& item : list_or_one(value)) {
    if (item.text() && std::ranges::count(kTypes, *item.text()) > 0) continue;
    schema_error(where, "\"type\" " + item.dump() +
                            " is none of null, boolean, number, integer, string, array, object");
  }
}

void check_value(const std::string& name, const Json& value, const std::string& where) {
  const auto want = [&](bool good, const char* expected) {
    if (!good)
      schema_error(where, quoted(name) + " must be " + expected + ", got " + type_of(value));
  };
  const auto is_schema = [](const Json& json) { return json.boolean() || json.members(); };
  if (name == "type") {
    check_type(value, where);
  } else if (name == "enum" || name == "prefixItems") {
    want(value.list() != nullptr, "a list");
  } else if (name == "required") {
    want(
        value.list() && std::ranges::all_of(
                            *value.list(), [](const Json& item) { return item.text() != nullptr; }),
        "a list of names");
  } else if (name == "properties") {
    want(value.members() != nullptr, "an object");
  } else if (name == "items" || name == "additionalProperties") {
    want(is_schema(value),
         name == "items" ? "a schema (a list of schemas is \"prefixItems\")" : "a schema");
  } else if (name == "pattern" || name == "format") {
    want(value.text() != nullptr, "a text");
  } else if (name.ends_with("Items") || name.ends_with("Length")) {
    want(value.whole() && *value.whole() >= 0, "a whole number of 0 or more");
  } else {
    want(value.number().has_value(), "a number");
  }
}

Json common_types(const Json& a, const Json& b) {
  JsonList out;
  const auto has = [](const Json& types, std::string_view name) {
    return std::ranges::any_of(list_or_one(types),
                               [&](const Json& type) { return *type.text() == name; });
  };
  for (const std::string_view name : kTypes) {
    const bool whole = name == "integer";
    const bool in_a = has(a, name) || (whole && has(a, "number"));
    const bool in_b = has(b, name) || (whole && has(b, "number"));
    if (in_a && in_b) out.emplace_back(std::string(name));
  }
  return out;
}

Json common_values(const Json& a, const Json& b) {
  JsonList out;
  for (const Json& item : *a.list())
    if (std::ranges::count(*b.list(), item) > 0) out.push_back(item);
  return out;
}

Json all_names(const Json& a, const Json& b) {
  JsonList out = *a.list();
  for (const Json& item : *b.list())
    if (std::ranges::count(out, item) == 0) out.push_back(item);
  return out;
}

bool is_lower_bound(std::string_view name) {
  return name == "minItems" || name == "minLength" || name == "minimum" ||
         name == "exclusiveMinimum";
}

bool is_upper_bound(std::string_view name) {
  return name == "maxItems" || name == "maxLength" || name == "maximum" ||
         name == "exclusiveMaximum";
}

// Of the values of an enum, or those the types allow.
std::set<std::string> types_of(const SchemaCase& one) {
  std::set<std::string> out;
  if (const Json* values = one.find("enum")) {
    for (const Json& value : *values->list())
      if (one.allows_type(type_of(value))) out.insert(type_of(value));
    return out;
  }
  for (const std::string_view type : kTypes)
    if (one.allows_type(type)) out.emplace(type);
  return out;
}

}  // namespace

void SchemaReader::merge_keyword(SchemaCase& into, const std::string& name, const Json& value,
                                 const std::string& where) {
  check_value(name, value, where);
  const Json* old = into.find(name);
  const bool lists = name == "items" || name == "prefixItems";
  const Json* other_list = lists ? into.find(name == "items" ? "prefixItems" : "items") : nullptr;
  if (old == nullptr) {
    // Within one schema `items` means those behind `prefixItems`; of two it means all of them.
    if (other_list != nullptr && &into != building_)
      schema_error(where, "\"items\" and \"prefixItems\" of combined schemas cannot be followed");
    into.keywords.emplace(name, value);
    return;
  }
  if (*old == value) return;
  Json merged;
  if (name == "type") {
    merged = common_types(*old, value);
  } else if (name == "enum") {
    merged = common_values(*old, value);
  } else if (name == "required") {
    merged = all_names(*old, value);
  } else if (name == "items" && other_list == nullptr) {
    merged = JsonMembers{{"allOf", JsonList{*old, value}}};
  } else if (is_lower_bound(name)) {
    merged = *old->number() > *value.number() ? *old : value;
  } else if (is_upper_bound(name)) {
    merged = *old->number() < *value.number() ? *old : value;
  } else {
    schema_error(where, "two different " + quoted(name) + " cannot be followed at once");
  }
  into.keywords.insert_or_assign(name, std::move(merged));
}

void SchemaReader::check_disjoint(const std::vector<Cases>& options, const std::string& where) {
  for (std::size_t i = 0; i < options.size(); ++i) {
    for (std::size_t j = i + 1; j < options.size(); ++j) {
      for (const SchemaCase& a : options[i]) {
        for (const SchemaCase& b : options[j]) {
          if (disjoint(a, b, where, 0)) continue;
          schema_error(where, "\"oneOf\": a value may fit both " + std::to_string(i) + " and " +
                                  std::to_string(j) +
                                  "; give them different types or a required property with "
                                  "different values, or use \"anyOf\"");
        }
      }
    }
  }
}

bool SchemaReader::disjoint(const SchemaCase& a, const SchemaCase& b, const std::string& where,
                            int depth) {
  SchemaCase merged;
  if (!merge(a, b, where, merged)) return true;
  const std::set<std::string> types_a = types_of(a), types_b = types_of(b);
  std::set<std::string> common;
  std::ranges::set_intersection(types_a, types_b, std::inserter(common, common.end()));
  if (types_a.contains("number") && types_b.contains("integer")) common.insert("integer");
  if (types_b.contains("number") && types_a.contains("integer")) common.insert("integer");
  if (common.empty()) return true;
  if (common != std::set<std::string>{"object"} || depth >= kDeepest) return false;
  const Json* required = merged.find("required");
  const Json* properties = merged.find("properties");
  if (required == nullptr) return false;
  for (const Json& name : *required->list()) {
    const Json* property = properties ? properties->find(*name.text()) : nullptr;
    if (property == nullptr) property = merged.find("additionalProperties");
    if (property != nullptr && nothing_fits(*property, where, depth + 1)) return true;
  }
  return false;
}

// Of a property that two schemas name it is the combination of both.
bool SchemaReader::nothing_fits(const Json& schema, const std::string& where, int depth) {
  const JsonMembers* members = schema.members();
  const Json* both = schema.find("allOf");
  if (members && members->size() == 1 && both && both->list() && both->list()->size() == 2) {
    for (const SchemaCase& a : cases((*both->list())[0], where))
      for (const SchemaCase& b : cases((*both->list())[1], where))
        if (!disjoint(a, b, where, depth)) return false;
    return true;
  }
  return cases(schema, where).empty();
}

}  // namespace specdec::grammar
