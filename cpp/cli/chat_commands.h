// What begins with a slash in a chat.
#pragma once

#include <string>
#include <vector>

#include "cli/chat_session.h"

namespace specdec::cli {

enum class AfterCommand { kGoOn, kExit };

// `line` begins with "/". What is wrong with it is said on stderr, where everything else goes too.
[[nodiscard]] AfterCommand run_chat_command(ChatSession& chat, const std::string& line);

// "/help ..." for --help and /help: a line each.
[[nodiscard]] std::string chat_commands_help();

// What `text` could become: a command, a file's name, a setting.
[[nodiscard]] std::vector<std::string> complete_chat_command(const std::string& text);

}  // namespace specdec::cli
