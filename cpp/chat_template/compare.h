// ==, <, in and hashes, as Python has them.
#pragma once

#include <cstdint>

#include "chat_template/value.h"

namespace specdec::chat {

[[nodiscard]] bool equal(Budget& budget, const Value& a, const Value& b);
// Fails for types that have no order; `op` is for the message.
[[nodiscard]] bool less(Budget& budget, const Value& a, const Value& b, const char* op = "<");
// a <= b: not the opposite of b < a where there is a NaN.
[[nodiscard]] bool less_equal(Budget& budget, const Value& a, const Value& b,
                              const char* op = "<=");
[[nodiscard]] bool contains(Budget& budget, const Value& container, const Value& item);
// Neither a list or dict nor a tuple with one in it.
[[nodiscard]] bool is_hashable(Budget& budget, const Value& value);
[[nodiscard]] std::uint64_t hash_of(Budget& budget, const Value& value);

// Where `wanted` first stands at or behind `from`; npos: nowhere. Every comparison is counted.
[[nodiscard]] std::size_t find_text(Budget& budget, TextView text, TextView wanted,
                                    std::size_t from = 0);
// Where it last stands before `end`.
[[nodiscard]] std::size_t find_last_text(Budget& budget, TextView text, TextView wanted);

}  // namespace specdec::chat
