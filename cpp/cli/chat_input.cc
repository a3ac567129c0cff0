#include "cli/chat_input.h"

#include <signal.h>
#include <unistd.h>

#include <utility>

#include "base/error.h"
#include "cli/interrupt.h"
#include "cli/terminal.h"

namespace specdec::cli {

ChatInput::ChatInput(const std::string& history_path,
                     std::function<std::vector<std::string>(const std::string&)> complete)
    : interactive_(is_terminal(STDIN_FILENO)),
      history_(interactive_ ? history_path : std::string()),
      lines_(STDIN_FILENO) {
  // The prompt belongs beside the notes; an answer may go to a file.
  const int out_fd = is_terminal(STDERR_FILENO) ? STDERR_FILENO : STDOUT_FILENO;
  if (!LineEditor::usable(STDIN_FILENO, out_fd)) return;
  LineEditorOptions options;
  options.complete = std::move(complete);
  options.should_stop = interrupted;
  editor_ = std::make_unique<LineEditor>(STDIN_FILENO, out_fd, history_, std::move(options));
  if (!history_.problem().empty()) {
    print_note("messages are not kept for the next time: " + printable(history_path, 400) + ": " +
               history_.problem());
  }
}

std::optional<std::string> ChatInput::next() {
  if (interactive_) write_stderr("\n");
  if (editor_ == nullptr) {
    if (interactive_) write_stderr("> ");
    return lines_.next();
  }
  ReadMessage message = editor_->read();
  // As if the terminal had sent the signal, which raw mode keeps to itself.
  if (message.end == ReadEnd::kInterrupted) ::raise(SIGINT);
  if (message.end == ReadEnd::kMessage) return std::move(message.text);
  return std::nullopt;
}

}  // namespace specdec::cli
