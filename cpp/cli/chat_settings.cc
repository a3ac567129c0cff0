#include "cli/chat_settings.h"

#include <algorithm>
#include <cstdio>
#include <iterator>

#include "base/error.h"
#include "cli/args.h"
#include "cli/terminal.h"
#include "decode/verifier.h"

namespace specdec::cli {
namespace {

constexpr const char* kFromNow = " from the next answer on";

std::string shown(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

std::vector<std::string> split_words(const std::string& text) {
  std::vector<std::string> words;
  for (std::size_t at = text.find_first_not_of(" \t"); at != std::string::npos;) {
    const std::size_t end = std::min(text.find_first_of(" \t", at), text.size());
    words.push_back(text.substr(at, end - at));
    at = text.find_first_not_of(" \t", end);
  }
  return words;
}

// The command line's own parser: the same ranges, the same messages.
int parse_number(const OptionSpec& spec, const std::string& text) {
  ArgParser parser("chat", "", "");
  int value = 0;
  parser.add(spec, &value);
  (void)parser.parse({flag_name(spec), text});
  return value;
}

// Sampling as it is but for these flags of the command line.
SamplingFlags parse_sampling(ChatSession& chat, const SamplingParams& now,
                             const std::vector<std::string>& flags) {
  ArgParser parser("chat", "", "");
  SamplingFlags sampling;
  add_sampling_flags(parser, sampling);
  sampling.params = now;  // adding an option sets its default
  (void)parser.parse(flags);
  try {
    if (flags.front() == "--seed") sampling.params = resolve_sampling(sampling);
    sampling.params.validate();
    (void)resolve_verifier(chat.flags().draft.verifier, sampling.params);
  } catch (const Error& error) {  // or it would end the chat with the next answer
    throw UsageError(error.what());
  }
  return sampling;
}

// What a switch becomes: turned round, or as the argument says.
bool switched(const char* command, bool now, const std::string& argument) {
  if (argument.empty()) return !now;
  if (argument == "on") return true;
  if (argument == "off") return false;
  throw UsageError(std::string(command) + " takes on, off or nothing, got " + quoted(argument));
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

struct Processor {
  const char* name;
  std::vector<const char*> flags;  // one per argument
  const char* usage;
};

const std::vector<Processor>& processors() {
  static const std::vector<Processor> kProcessors = {
      {"greedy", {}, "nothing"},
      {"multinomial", {"--temp"}, "TEMPERATURE"},
      {"topk", {"--temp", "--top-k"}, "TEMPERATURE TOP_K"},
      {"nucleus", {"--temp", "--top-p"}, "TEMPERATURE TOP_P"},
      {"topknucleus", {"--temp", "--top-k", "--top-p"}, "TEMPERATURE TOP_K TOP_P"},
      {"twostage", {"--temp", "--top-k", "--noise-scale"}, "TEMPERATURE TOP_K NOISE"},
  };
  return kProcessors;
}

std::string described(const SamplingParams& params) {
  if (params.temperature == 0) return "the best token always (temperature 0)";
  std::string text = "temperature " + shown(params.temperature);
  if (params.top_k > 0) text += ", top-k " + std::to_string(params.top_k);
  if (params.top_p < 1) text += ", top-p " + shown(params.top_p);
  if (params.min_p > 0) text += ", min-p " + shown(params.min_p);
  if (params.noise_scale > 0) text += ", noise " + shown(params.noise_scale);
  return text;
}

std::string drafting(const ChatSession& chat, const DraftFlags& draft) {
  if (!chat.speculative()) return "off; /speculative switches to " + draft.drafter;
  return draft.drafter + (draft.gamma >= 0 ? ", drafts of " + std::to_string(draft.gamma) : "");
}

void choose_drafter(ChatSession& chat, DraftFlags draft, const std::string& name) {
  const bool on = name != "none";
  if (on) draft.drafter = name;
  chat.set_drafting(draft, on);
  print_note("drafting: " + drafting(chat, draft) + kFromNow);
}

}  // namespace

void set_setting(ChatSession& chat, const std::string& argument) {
  const std::size_t space = argument.find_first_of(" \t");
  std::string name = argument.substr(0, space);
  if (name.empty()) return show_settings(chat);
  std::replace(name.begin(), name.end(), '_', '-');
  if (name == "temperature") name = "temp";
  if (std::find(std::begin(kSettings), std::end(kSettings), name) == std::end(kSettings)) {
    std::string text = "unknown setting " + quoted(name) + "; there are";
    for (const char* setting : kSettings) text += std::string(" ") + setting;
    throw UsageError(text);
  }
  if (space == std::string::npos) throw UsageError("/set " + name + " needs a value");
  const std::string value = argument.substr(argument.find_first_not_of(" \t", space));
  if (name == "max-tokens") {
    chat.flags().max_tokens = parse_number(opt::kCallMaxTokens, value);
  } else {
    const SamplingParams& now = chat.flags().sampling.params;
    chat.flags().sampling.params = parse_sampling(chat, now, {"--" + name, value}).params;
  }
  print_note(name + " is " + value + kFromNow);
}

void set_length(ChatSession& chat, const std::string& argument) {
  set_setting(chat, "max-tokens " + argument);
}

void set_processor(ChatSession& chat, const std::string& argument) {
  const std::vector<std::string> words = split_words(argument);
  if (words.empty()) {
    print_note("sampling: " + described(chat.flags().sampling.params));
    return;
  }
  const auto found =
      std::find_if(processors().begin(), processors().end(),
                   [&](const Processor& processor) { return words[0] == processor.name; });
  if (found == processors().end()) {
    std::string text = "unknown processor " + quoted(words[0]) + "; there are";
    for (const Processor& processor : processors()) text += std::string(" ") + processor.name;
    throw UsageError(text);
  }
  if (words.size() != found->flags.size() + 1) {
    std::string text = "/processor " + words[0] + " takes " + found->usage + ", got";
    for (std::size_t i = 1; i < words.size(); ++i) text += " " + quoted(words[i]);
    throw UsageError(text + (words.size() == 1 ? " nothing" : ""));
  }
  SamplingParams none = chat.flags().sampling.params;
  const SamplingParams defaults;
  none.top_k = defaults.top_k;
  none.top_p = defaults.top_p;
  none.min_p = defaults.min_p;
  none.noise_scale = defaults.noise_scale;
  std::vector<std::string> flags = {"--temp", "0"};
  for (std::size_t i = 0; i < found->flags.size(); ++i) {
    flags.emplace_back(found->flags[i]);
    flags.push_back(words[i + 1]);
  }
  chat.flags().sampling.params = parse_sampling(chat, none, flags).params;
  print_note("sampling: " + described(chat.flags().sampling.params) + kFromNow);
}

void toggle_speculative(ChatSession& chat, const std::string& argument) {
  const bool on = switched("/speculative", chat.speculative(), argument);
  chat.set_drafting(chat.flags().draft, on);
  print_note(on ? "speculation is on: " + drafting(chat, chat.flags().draft)
                : std::string("speculation is off: the target decodes plainly") + kFromNow);
}

void set_drafter(ChatSession& chat, const std::string& argument) {
  if (argument.empty()) {
    std::string text = "drafting: " + drafting(chat, chat.flags().draft) + "; /drafter takes alone";
    for (const std::string& name : drafter_names()) text += ", " + name;
    print_note(text);
  } else if (argument == "alone") {
    chat.set_draft_alone(!chat.draft_alone());
    print_note(chat.draft_alone() ? "the draft model's own answer is shown below each answer"
                                  : "the draft model's own answer is no longer shown");
  } else {
    check_drafters(argument);
    choose_drafter(chat, chat.flags().draft, argument);
  }
}

void set_ngram(ChatSession& chat, const std::string& argument) {
  DraftFlags draft = chat.flags().draft;
  if (argument.empty()) {
    const bool alone = chat.speculative() && draft.drafter == "ngram";
    choose_drafter(chat, draft, alone ? chat.drafter_before() : "ngram");
    return;
  }
  draft.ngram_n = parse_number(opt::kNGramN, argument);
  choose_drafter(chat, draft, "ngram");
}

void set_gamma(ChatSession& chat, const std::string& argument) {
  DraftFlags draft = chat.flags().draft;
  if (!argument.empty()) {
    draft.gamma = argument == "auto" ? -1 : parse_number(opt::kDraftModelGamma, argument);
    if (draft.gamma >= 0) {  // which says it all
      draft.draft_max = -1;
      draft.draft_min = 0;
    }
    chat.set_drafting(draft, chat.speculative());
  }
  print_note(draft.gamma < 0 ? std::string("drafts are as long as the drafters choose")
                             : "drafts have " + std::to_string(draft.gamma) +
                                   " tokens, where a drafter finds so many");
}

void set_top_k_filler(ChatSession& chat, const std::string& argument) {
  DraftFlags draft = chat.flags().draft;
  draft.ngram_filler_top_k = parse_number(opt::kNGramFillerTopK, argument);
  chat.set_drafting(draft, chat.speculative());
  print_note("ngram learns from the target's " + argument + " best tokens" + kFromNow +
             (chat.drafts_with("ngram") ? "" : "; it does not draft now: /ngram"));
}

void toggle_cache(ChatSession& chat, const std::string& argument) {
  DraftFlags draft = chat.flags().draft;
  draft.use_cache = switched("/cache", draft.use_cache, argument);
  chat.set_drafting(draft, chat.speculative());
  print_note(draft.use_cache ? "passes read what is new to them"
                             : "every pass reads its whole context again" + std::string(kFromNow));
}

void toggle_target(ChatSession& chat, const std::string& argument) {
  const bool on = switched("/target", chat.target_alone(), argument);
  chat.set_target_alone(on);
  print_note(!on ? "the target's own answer is no longer shown"
             : chat.speculative()
                 ? "the target's own answer is shown below each answer, and both are compared"
                 : "each answer is the target's own: /speculative gives something to compare");
}

void toggle_reset(ChatSession& chat, const std::string& argument) {
  const bool on =
      switched("/reset_in_between", chat.between_answers() == BetweenAnswers::kNothing, argument);
  chat.set_between_answers(on ? BetweenAnswers::kNothing : BetweenAnswers::kEverything);
  print_note(on ? "every question stands alone: conversation and lookups begin anew"
                : "the conversation, and all that lookups learnt, are kept between answers");
}

void toggle_debug(ChatSession& chat, const std::string& argument) {
  chat.set_trace(switched("/debug", chat.trace(), argument));
  print_note(chat.trace() ? "each pass of the target is told; the text comes at its end"
                          : "passes of the target are no longer told");
}

std::vector<std::string> words_after(const std::string& command) {
  std::vector<std::string> words;
  if (command == "/set") words.assign(std::begin(kSettings), std::end(kSettings));
  if (command == "/drafter") {
    words = drafter_names();
    words.emplace_back("alone");
  }
  if (command == "/processor") {
    for (const Processor& processor : processors()) words.emplace_back(processor.name);
  }
  if (command == "/gamma") words = {"auto"};
  for (const char* toggle : {"/speculative", "/cache", "/target", "/reset_in_between", "/debug"}) {
    if (command == toggle) words = {"on", "off"};
  }
  return words;
}

}  // namespace specdec::cli
