// A JSON schema as cases, each of which is plain: without references and combinations.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "grammar/json.h"

namespace specdec::grammar {

// Keywords of one case, for all types; what a case does not have is not in it.
struct SchemaCase {
  std::map<std::string, Json, std::less<>> keywords;
  [[nodiscard]] const Json* find(std::string_view name) const {
    const auto found = keywords.find(name);
    return found == keywords.end() ? nullptr : &found->second;
  }
  [[nodiscard]] bool allows_type(std::string_view type) const;  // "integer" is a "number" too
};

class SchemaReader {
 public:
  explicit SchemaReader(const Json& root) : root_(root) {}

  // A value fits the schema if it fits one of the cases. `where` is a JSON pointer for messages.
  [[nodiscard]] std::vector<SchemaCase> cases(const Json& schema, const std::string& where);

 private:
  using Cases = std::vector<SchemaCase>;
  [[nodiscard]] Cases combined(const Cases& a, const Cases& b, const std::string& where);
  // Whether any value fits both; `merged` is what fits both.
  [[nodiscard]] bool merge(const SchemaCase& a, const SchemaCase& b, const std::string& where,
                           SchemaCase& merged);
  void merge_keyword(SchemaCase& into, const std::string& name, const Json& value,
                     const std::string& where);
  void merge_properties(const SchemaCase& a, const SchemaCase& b, SchemaCase& merged) const;
  void check_disjoint(const std::vector<Cases>& options, const std::string& where);
  [[nodiscard]] bool disjoint(const SchemaCase& a, const SchemaCase& b, const std::string& where,
                              int depth);
  [[nodiscard]] bool nothing_fits(const Json& schema, const std::string& where, int depth);
  [[nodiscard]] const Json& target(const std::string& reference, const std::string& where) const;
  [[nodiscard]] SchemaCase plain_keywords(const JsonMembers& members, const std::string& where);

  const Json& root_;
  std::vector<std::string> open_references_;
  const SchemaCase* building_ = nullptr;  // the case of one schema, before it is combined
};

[[noreturn]] void schema_error(const std::string& where, const std::string& problem);
// What may be one or a list, as "type" may.
[[nodiscard]] JsonList list_or_one(const Json& value);
// How a type of a schema is called that a value has.
[[nodiscard]] std::string type_of(const Json& value);

}  // namespace specdec::grammar
