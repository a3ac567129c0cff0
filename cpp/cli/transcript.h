// A conversation as a file.
#pragma once

#include <string>
#include <vector>

#include "tokenizer/chat_format.h"

namespace specdec::cli {

// As chat servers take it: {"messages": [{"role": "user", "content": "..."}, ...]}. An existing
// file is replaced whole or not at all. Throws Error(kIo).
void save_transcript(const std::string& path, const std::vector<ChatMessage>& messages);
// An object with "messages", or their array alone. Throws Error: kIo, kModelFormat.
[[nodiscard]] std::vector<ChatMessage> load_transcript(const std::string& path);

}  // namespace specdec::cli
