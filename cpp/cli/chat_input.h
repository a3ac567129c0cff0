// Where the messages of a chat come from: a terminal with editing and history, or lines of a pipe.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/line_editor/history.h"
#include "cli/line_editor/line_editor.h"
#include "cli/text_input.h"

namespace specdec::cli {

class ChatInput {
 public:
  // `complete`: what the text before the cursor could become. history_path "": none is kept.
  ChatInput(const std::string& history_path,
            std::function<std::vector<std::string>(const std::string&)> complete);

  // On a terminal, so that a person can answer.
  [[nodiscard]] bool interactive() const noexcept { return interactive_; }
  // Nothing at the end of the input. Ctrl-C and other signals end it too: interrupted() says so.
  [[nodiscard]] std::optional<std::string> next();

 private:
  bool interactive_;
  History history_;
  std::unique_ptr<LineEditor> editor_;  // null: lines as they come
  LineReader lines_;
};

}  // namespace specdec::cli
