#include "cli/chat_commands.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <limits>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "cli/args.h"
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

std::string shown(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

constexpr const char* kSettings[] = {"temp",
                                     "top-k",
                                     "top-p",
                                     "min-p",
                                     "noise-scale",
                                     "repeat-penalty",
                                     "repeat-last-n",
                                     "presence-penalty",
                                     "frequency-penalty",
                                     "seed",
                                     "max-tokens"};

void show_settings(ChatSession& chat) {
  const SamplingParams& p = chat.flags().sampling.params;
  const std::string values[] = {shown(p.temperature),
                                std::to_string(p.top_k),
                                shown(p.top_p),
                                shown(p.min_p),
                                shown(p.noise_scale),
                                shown(p.repetition_penalty),
                                std::to_string(p.penalty_last_n),
                                shown(p.presence_penalty),
                                shown(p.frequency_penalty),
                                std::to_string(p.seed),
                                std::to_string(chat.flags().max_tokens)};
  static_assert(std::size(kSettings) == std::size(values));
  std::string out;
  for (std::size_t i = 0; i < std::size(kSettings); ++i) {
    std::string name = kSettings[i];
    name.resize(20, ' ');
    out += "  " + name + values[i] + "\n";
  }
  write_stderr(out);
}

AfterCommand set(ChatSession& chat, const std::string& argument) {
  const std::size_t space = argument.find(' ');
  std::string name = argument.substr(0, space);
  if (name.empty()) {
    show_settings(chat);
    return AfterCommand::kGoOn;
  }
  std::replace(name.begin(), name.end(), '_', '-');
  if (name == "temperature") name = "temp";
  if (std::find(std::begin(kSettings), std::end(kSettings), name) == std::end(kSettings)) {
    std::string text = "unknown setting " + cli::quoted(name) + "; there are";
    for (const char* setting : kSettings) text += std::string(" ") + setting;
    throw UsageError(text);
  }
  if (space == std::string::npos) throw UsageError("/set " + name + " needs a value");
  const std::string value = argument.substr(argument.find_first_not_of(' ', space));
  // The command line's own parser: the same ranges, the same messages.
  ArgParser parser("chat", "", "");
  SamplingFlags sampling;
  int max_tokens = 0;
  add_sampling_flags(parser, sampling);
  parser.add(opt::kCallMaxTokens, &max_tokens);
  // Adding an option sets its default: what holds now comes after.
  sampling.params = chat.flags().sampling.params;
  max_tokens = chat.flags().max_tokens;
  (void)parser.parse({"--" + name, value});
  if (name == "seed") sampling.params = resolve_sampling(sampling);
  chat.flags().sampling.params = sampling.params;
  chat.flags().max_tokens = max_tokens;
  print_note(name + " is " + value + " from the next answer on");
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
    {"/set", "[NAME VALUE]", "show the settings, or change one: /set temp 0.2", set},
    {"/stats", "", "explain the speed of the last answer", stats},
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
    line.resize(24, ' ');
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
      throw UsageError(name + " needs a " + found->argument);
    }
    return found->run(chat, argument);
  } catch (const UsageError& error) {
    print_note(error.what());
  } catch (const Error& error) {
    // The conversation goes on after a file that could not be read, not after one of the model's.
    if (name != "/save" && name != "/load" && name != "/set") throw;
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
  if (name == "/set") {
    for (const char* setting : kSettings) {
      const std::string whole = name + " " + setting + " ";
      if (whole.starts_with(text)) out.push_back(whole);
    }
  } else if (name == "/save" || name == "/load") {
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
