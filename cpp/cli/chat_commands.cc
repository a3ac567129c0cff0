#include "cli/chat_commands.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "cli/args.h"
#include "cli/chat_settings.h"
#include "cli/interrupt.h"
#include "cli/report.h"
#include "cli/terminal.h"
#include "cli/transcript.h"

namespace specdec::cli {
namespace {

struct Command {
  const char* name;
  const char* argument;  // "": takes none
  const char* help;
  AfterCommand (*run)(ChatSession& chat, const std::string& argument);
};

AfterCommand help(ChatSession&, const std::string&) {
  write_stderr(chat_commands_help());
  return AfterCommand::kGoOn;
}

AfterCommand set_system(ChatSession& chat, const std::string& text) {
  if (text.empty()) {
    print_note(chat.system().empty() ? "no system message of yours; the template may have its own"
                                     : "system message: " + chat.system());
  } else {
    chat.set_system(text == "none" ? std::string() : text);
    print_note(text == "none" ? "no system message of yours from now on"
                              : "system message set; it holds from the next question on");
  }
  return AfterCommand::kGoOn;
}

AfterCommand regenerate(ChatSession& chat, const std::string&) {
  if (chat.messages().empty() || chat.messages().back().role == "system") {
    print_note("there is no answer yet");
    return AfterCommand::kGoOn;
  }
  if (chat.flags().sampling.params.temperature == 0) {
    print_note("at temperature 0 the answer is the same: /set temp 0.7 changes that");
  }
  (void)chat.regenerate();
  return AfterCommand::kGoOn;
}

AfterCommand undo(ChatSession& chat, const std::string&) {
  const std::optional<std::string> question = chat.undo();
  print_note(question ? "taken back: " + printable(*question, 100)
                      : "there is nothing to take back");
  return AfterCommand::kGoOn;
}

AfterCommand reset(ChatSession& chat, const std::string&) {
  chat.reset();
  print_note("the conversation starts anew");
  return AfterCommand::kGoOn;
}

AfterCommand save(ChatSession& chat, const std::string& path) {
  save_transcript(path, chat.messages());
  print_note("saved " + printable(path, 400));
  return AfterCommand::kGoOn;
}

AfterCommand load(ChatSession& chat, const std::string& path) {
  std::vector<ChatMessage> messages = load_transcript(path);
  const std::size_t n = messages.size();
  chat.set_messages(std::move(messages));
  print_note("loaded " + std::to_string(n) + (n == 1 ? " message" : " messages") + " from " +
             printable(path, 400) +
             (chat.unanswered() ? "; /regen answers the last one" : std::string()));
  return AfterCommand::kGoOn;
}

// Of chat_settings.h.
template <void (*change)(ChatSession&, const std::string&)>
AfterCommand changing(ChatSession& chat, const std::string& argument) {
  change(chat, argument);
  return AfterCommand::kGoOn;
}

AfterCommand clear_screen(ChatSession&, const std::string&) {
  if (is_terminal(STDERR_FILENO)) write_stderr("\033[H\033[2J");
  return AfterCommand::kGoOn;
}

AfterCommand stats(ChatSession& chat, const std::string&) {
  if (!chat.last()) {
    print_note("nothing was generated yet");
    return AfterCommand::kGoOn;
  }
  print_speed(*chat.last(), chat.target());
  print_note("the conversation takes " + std::to_string(chat.n_tokens()) + " of " +
             std::to_string(chat.n_ctx()) + " tokens of context");
  return AfterCommand::kGoOn;
}

AfterCommand leave(ChatSession&, const std::string&) { return AfterCommand::kExit; }

constexpr Command kCommands[] = {
    {"/help", "", "these lines", help},
    {"/system", "[TEXT]", "show the system message, or set it; none: take it out", set_system},
    {"/regen", "", "another answer to the last question", regenerate},
    {"/undo", "", "take back the last question and its answer", undo},
    {"/reset", "", "forget the conversation", reset},
    {"/save", "FILE", "write the conversation to a JSON file", save},
    {"/load", "FILE", "go on with a conversation from a file", load},
    {"/set", "[NAME VALUE]", "show the settings, or change one: /set temp 0.2",
     changing<set_setting>},
    {"/length", "N", "tokens of an answer at most; -1: no limit", changing<set_length>},
    {"/processor", "[NAME ARGS]",
     "sampling: greedy, multinomial, topk, nucleus, topknucleus or twostage",
     changing<set_processor>},
    {"/speculative", "[on|off]", "speculate, or decode plainly", changing<toggle_speculative>},
    {"/drafter", "[NAMES]", "show who drafts, or choose; alone: show the draft model's own answers",
     changing<set_drafter>},
    {"/ngram", "[N]", "draft by n-grams of N tokens, or no longer", changing<set_ngram>},
    {"/gamma", "[N]", "tokens of every draft; auto: as many as the drafters choose",
     changing<set_gamma>},
    {"/top_k_filler", "N", "n-grams learn from the N best tokens of each position",
     changing<set_top_k_filler>},
    {"/cache", "[on|off]", "off: every pass reads its whole context again, for experiments",
     changing<toggle_cache>},
    {"/target", "[on|off]", "show the target's own answer too, and compare",
     changing<toggle_target>},
    {"/reset_in_between", "[on|off]",
     "on: every question stands alone; off: keep all that was learnt", changing<toggle_reset>},
    {"/debug", "[on|off]", "tell what each pass drafted and accepted", changing<toggle_debug>},
    {"/stats", "", "explain the speed of the last answer", stats},
    {"/clear", "", "clear the screen", clear_screen},
    {"/exit", "", "leave; so do /quit, Ctrl-D and Ctrl-C twice", leave},
    {"/quit", "", nullptr, leave},
};

std::string trimmed(const std::string& text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

}  // namespace

std::string chat_commands_help() {
  std::string out;
  for (const Command& command : kCommands) {
    if (command.help == nullptr) continue;
    std::string line = std::string("  ") + command.name + (*command.argument != '\0' ? " " : "") +
                       command.argument;
    line.resize(30, ' ');
    out += line + command.help + "\n";
  }
  return out;
}

AfterCommand run_chat_command(ChatSession& chat, const std::string& line) {
  const std::size_t end = std::min(line.find_first_of(" \t\n"), line.size());
  const std::string name = line.substr(0, end);
  const std::string argument = trimmed(line.substr(end));
  const auto found = std::find_if(std::begin(kCommands), std::end(kCommands),
                                  [&](const Command& command) { return name == command.name; });
  try {
    if (found == std::end(kCommands)) {
      std::string text = "unknown command " + quoted(name) + "; there are";
      for (const Command& command : kCommands) {
        if (command.help != nullptr) text += std::string(" ") + command.name;
      }
      throw UsageError(text);
    }
    if (*found->argument == '\0' && !argument.empty()) {
      throw UsageError(name + " takes nothing after it, got " + quoted(argument));
    }
    if (*found->argument != '\0' && *found->argument != '[' && argument.empty()) {
      throw UsageError(name + " needs something after it: " + found->argument);
    }
    return found->run(chat, argument);
  } catch (const UsageError& error) {
    print_note(error.what());
  } catch (const Error& error) {
    // The conversation goes on after a file that could not be read, not after one of the model's.
    if (name != "/save" && name != "/load") throw;
    print_warning(error.what());
  }
  return AfterCommand::kGoOn;
}

std::vector<std::string> complete_chat_command(const std::string& text) {
  std::vector<std::string> out;
  if (!text.starts_with('/')) return out;
  const std::size_t space = text.find(' ');
  if (space == std::string::npos) {
    for (const Command& command : kCommands) {
      const std::string whole = std::string(command.name) + (*command.argument != '\0' ? " " : "");
      if (whole.starts_with(text)) out.push_back(whole);
    }
    return out;
  }
  const std::string name = text.substr(0, space);
  for (const std::string& word : words_after(name)) {
    const std::string whole = name + " " + word + " ";
    if (whole.starts_with(text)) out.push_back(whole);
  }
  if (name == "/save" || name == "/load") {
    const std::filesystem::path typed = text.substr(space + 1);
    const std::string folder = typed.parent_path().string();
    std::error_code error;
    for (std::filesystem::directory_iterator i(folder.empty() ? "." : folder, error), none;
         !error && i != none && out.size() < 100; i.increment(error)) {
      std::string whole = name + " " + (typed.parent_path() / i->path().filename()).string();
      std::error_code ignored;
      if (i->is_directory(ignored)) whole += '/';
      if (whole.starts_with(text)) out.push_back(std::move(whole));
    }
    std::sort(out.begin(), out.end());
  }
  return out;
}

}  // namespace specdec::cli
