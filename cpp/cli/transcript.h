// A conversation as a file.
#pragma once

#include <string>
#include <vector>

#include "engine/chat_prompt.h"

namespace specdec::cli {

// As chat servers take it: {"messages": [{"role": "user", "content": "..."}, ...]}. An existing
// file is replaced whole or not at all. Throws Error(kIo).
void save_transcript(const std::string& path, const std::vector<ChatMessage>& messages);
// An object with "messages", or their array alone. Throws Error: kIo, kInvalidArgument for what is
// none.
[[nodiscard]] std::vector<ChatMessage> load_transcript(const std::string& path);

}  // namespace specdec::cli
