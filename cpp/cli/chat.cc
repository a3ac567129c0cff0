// `specdec chat`: a conversation on the terminal, or with lines from a pipe.

#include <unistd.h>

#include <optional>
#include <string>
#include <utility>

#include "base/error.h"
#include "cli/args.h"
#include "cli/chat_commands.h"
#include "cli/chat_input.h"
#include "cli/chat_session.h"
#include "cli/commands.h"
#include "cli/draft_flags.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/prompt_cache.h"
#include "cli/terminal.h"

namespace specdec::cli {
namespace {

void greet(const ChatSession& chat, const ChatCommandFlags& flags) {
  const ModelInfo& info = chat.target().info();
  const std::string title = info.name.empty() ? printable(info.path, 400) : info.name;
  write_stderr(
      "Chatting with " + title +
      ". /help lists the commands; Ctrl-C stops an answer, Alt-Enter begins a new line.\n");
  if (wants_color(STDOUT_FILENO, flags.output.no_color)) {
    write_stderr(std::string(kDraftColor) + "Words in this colour" + std::string(kResetColor) +
                 " were guessed ahead and confirmed by the model.\n");
  }
}

int converse(ChatSession& chat, ChatInput& input) {
  while (true) {
    const std::optional<std::string> line = input.next();
    if (interrupted()) return interrupt_exit_code();
    if (!line) return kExitOk;
    if (line->empty()) continue;
    if (line->starts_with('/')) {
      if (run_chat_command(chat, *line) == AfterCommand::kExit) return kExitOk;
    } else {
      (void)chat.ask(*line);
    }
    // Ctrl-C ends an answer; where nobody sits, and on SIGTERM, everything.
    if (terminated() || (interrupted() && !input.interactive())) return interrupt_exit_code();
    clear_interrupt();
  }
}

}  // namespace

int run_chat(const Arguments& arguments) {
  ChatCommandFlags flags;
  ArgParser parser(
      "chat", "-m FILE [OPTIONS]",
      "A conversation: each line of standard input is a message. On a terminal messages can be "
      "edited, Alt-Enter begins another line of one, and several lines pasted at once are one. "
      "What was said before is not read again.");
  add_model_flags(parser, flags.model);
  parser.add(opt::kDecoderNCtx, &flags.model.n_ctx);
  add_draft_model_flags(parser, flags.model);
  parser.section("Chat");
  add_chat_flags(parser, flags.chat);
  add_prompt_cache_flags(parser, flags.kept);
  parser.add(opt::kCallMaxTokens, &flags.max_tokens);
  parser.add(opt::kChatHistory, &flags.history);
  parser.add(opt::kChatNoHistory, &flags.no_history);
  add_sampling_flags(parser, flags.sampling);
  add_draft_flags(parser, flags.draft);
  add_output_flags(parser, flags.output);
  parser.add(opt::kOutputNoColor, &flags.output.no_color);
  parser.epilogue("Commands in a chat:\n" + chat_commands_help());
  if (!parser.parse(arguments)) {
    write_stdout(parser.help());
    return kExitOk;
  }
  check_model_flags(parser, flags.model);
  check_draft_flags(parser, flags.model, flags.draft);
  check_prompt_cache_flags(flags.kept, flags.draft.use_cache);
  flags.sampling.params = resolve_sampling(flags.sampling);
  std::string history = flags.history.empty() ? History::default_path() : flags.history;
  if (flags.no_history) history.clear();
  LoadedPair pair = load_pair(flags.model, flags.draft, flags.output);
  ChatSession chat(flags, std::move(pair));
  ChatInput input(history, complete_chat_command);
  if (input.interactive() && !flags.output.quiet) greet(chat, flags);
  return converse(chat, input);
}

}  // namespace specdec::cli
