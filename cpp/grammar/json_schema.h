// A JSON schema as a grammar.
#pragma once

#include <string_view>

#include "grammar/automaton.h"

namespace specdec::grammar {

// Texts of one JSON value that the schema allows, its properties in the order of the schema.
// Followed are: type, enum, const, properties, required, additionalProperties, items, prefixItems,
// minItems, maxItems, minLength, maxLength, pattern, format (date, time, date-time, uuid, ipv4),
// minimum, maximum, exclusiveMinimum, exclusiveMaximum, anyOf, oneOf of what differs, allOf, $ref
// within the schema. Throws Error(kInvalidArgument) that names the place for any other keyword that
// rules something out, and for a schema that nothing fits.
[[nodiscard]] Automaton json_schema_automaton(std::string_view schema);

}  // namespace specdec::grammar
