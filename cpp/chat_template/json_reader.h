// JSON to values.
#pragma once

#include <string>
#include <string_view>

#include "chat_template/value.h"

namespace specdec::chat {

// `mark` is kCallers for what comes from the caller: texts, keys and numbers carry it. NaN and
// Infinity are read as Python writes them. `what` names the text in messages. Throws
// Error(kInvalidArgument) with the position.
[[nodiscard]] Value read_json(Budget& budget, std::string_view text, Unit mark,
                              const std::string& what);

}  // namespace specdec::chat
