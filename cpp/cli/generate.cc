// `specdec generate`: continues a prompt.

#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include "cli/args.h"
#include "cli/chat_flags.h"
#include "cli/commands.h"
#include "cli/draft_flags.h"
#include "cli/grammar_flags.h"
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/options.h"
#include "cli/prompt_cache.h"
#include "cli/report.h"
#include "cli/terminal.h"
#include "engine/check_output.h"

namespace specdec::cli {
namespace {

struct GenerateFlags {
  ModelFlags model;
  PromptFlags prompt;
  SamplingFlags sampling;
  DraftFlags draft;
  OutputFlags output;
  ChatFlags chat;
  GrammarFlags grammar;
  PromptCacheFlags kept;
  int max_tokens = -1;
  bool ignore_eos = false;
  bool special = false;
  bool parse_special = true;
  bool trace = false;
  bool check = false;
  int n_logprobs = -1;
  std::vector<std::string> stop;
};

ArgParser make_parser(GenerateFlags& flags) {
  ArgParser parser(
      "generate", "-m FILE (-p TEXT | -f FILE) [OPTIONS]",
      "Continues a prompt. The text goes to standard output, everything else to standard "
      "error. On a terminal, tokens that a draft got right are green.");
  add_model_flags(parser, flags.model);
  parser.add(opt::kDecoderNCtx, &flags.model.n_ctx);
  add_draft_model_flags(parser, flags.model);
  add_prompt_flags(parser, flags.prompt);
  parser.add(opt::kCallParseSpecial, &flags.parse_special);
  add_chat_switches(parser, flags.chat);
  add_chat_flags(parser, flags.chat);
  add_prompt_cache_flags(parser, flags.kept);
  parser.section("Generation");
  parser.add(opt::kCallMaxTokens, &flags.max_tokens);
  parser.add(opt::kCallStop, &flags.stop);
  parser.add(opt::kCallIgnoreEos, &flags.ignore_eos);
  parser.add(opt::kCallRenderSpecial, &flags.special);
  add_grammar_flags(parser, flags.grammar);
  add_sampling_flags(parser, flags.sampling);
  add_draft_flags(parser, flags.draft);
  add_output_flags(parser, flags.output);
  parser.add(opt::kOutputNoColor, &flags.output.no_color);
  parser.add(opt::kOutputJson, &flags.output.json);
  parser.add(opt::kCallLogprobs, &flags.n_logprobs);
  parser.add(opt::kCallOnRound, &flags.trace);
  parser.add(opt::kCallVerifyOutput, &flags.check);
  parser.epilogue(
      "Examples:\n"
      "  specdec generate -m model.gguf -p 'Once upon a time' -n 64\n"
      "  specdec generate -m big.gguf -md small.gguf -f prompt.txt --temp 0.8 --seed 7\n"
      "  specdec generate -m model.gguf --chat -p 'Write a haiku about rain.' --json");
  return parser;
}

void print_json(const GenerateFlags& flags, const GenerateResult& result, const LoadedPair& pair,
                const std::string& prompt, const std::optional<OutputCheck>& check) {
  JsonWriter json;
  json.begin_object().member("model", pair.target->info().path).key("draft_model");
  pair.options.draft ? json.value(pair.options.draft->info().path) : json.null();
  json.member("prompt", prompt)
      .member("seed", result.seed)
      .member("temperature", flags.sampling.params.temperature)
      .member("text", result.text)
      .member("token_ids", result.token_ids)
      .member("from_draft", result.from_draft)
      .member("finish_reason", result.finish_reason)
      .member("stop_reason", result.stop_reason)
      .member("n_prompt_tokens", result.n_prompt_tokens);
  if (flags.n_logprobs >= 0) {
    json.key("logprobs");
    write_logprobs(json, result.logprobs, *pair.target);
  }
  json.key("stats");
  write_stats(json, result.stats, pair.load_ms);
  if (check) {
    json.key("check").begin_object().member("identical", check->identical);
    json.member("n_tokens", check->n_tokens).member("difference", check->difference);
    json.member("plain_token_ids", check->plain.token_ids).key("plain_stats");
    write_stats(json, check->plain.stats, pair.load_ms);
    json.end_object();
  }
  json.end_object();
  write_stdout(json.text() + "\n");
}

int report_check(const OutputCheck& check, bool quiet) {
  if (!check.identical) {
    print_warning("the output is not what plain decoding gives: " + check.difference);
    return kExitInternal;
  }
  if (!quiet) {
    print_note("checked: identical to plain decoding, " + std::to_string(check.n_tokens) +
               " tokens");
  }
  return kExitOk;
}

}  // namespace

int run_generate(const Arguments& arguments) {
  GenerateFlags flags;
  ArgParser parser = make_parser(flags);
  if (!parser.parse(arguments)) {
    write_stdout(parser.help());
    return kExitOk;
  }
  check_model_flags(parser, flags.model);
  check_draft_flags(parser, flags.model, flags.draft);
  check_prompt_cache_flags(flags.kept, flags.draft.use_cache);
  if (flags.n_logprobs >= 0 && !flags.output.json) throw UsageError("--logprobs needs --json");
  const SamplingParams sampling = resolve_sampling(flags.sampling);
  if (flags.check) require_checkable(flags.draft.verifier, sampling);
  const std::string prompt = read_prompt(parser, flags.prompt);
  const std::optional<TextGrammar> grammar = read_grammar(parser, flags.grammar);
  const LoadedPair pair = load_pair(flags.model, flags.draft, flags.output);
  Session session = make_session(pair);
  load_prompt_cache(session, flags.kept);

  GenerateRequest request;
  if (flags.chat.wanted()) {
    request.prompt_ids =
        chat_prompt(pair.target->file(), pair.target->tokenizer(), flags.chat, prompt).ids;
  } else {
    request.prompt = prompt;
    request.parse_special = flags.parse_special;
  }
  request.max_tokens = flags.max_tokens;
  request.sampling = sampling;
  request.stop = flags.stop;
  request.ignore_eos = flags.ignore_eos;
  request.render_special = flags.special;
  if (flags.n_logprobs >= 0) request.n_logprobs = flags.n_logprobs;
  if (grammar) request.constraint = grammar->constraint(*pair.target);
  request.cancel = &interrupt_flag();

  const bool color = wants_color(STDOUT_FILENO, flags.output.no_color);
  ProgressBar bar("reading the prompt", !flags.output.quiet);
  request.on_progress = [&bar](int n_read, int n_total) {
    bar.update(static_cast<double>(n_read) / n_total);
  };
  request.on_chunk = [&](const OutputChunk& chunk) {
    bar.finish();
    // The trace would tear the text apart.
    if (!flags.output.json && !flags.trace) write_chunk(chunk, color);
  };
  if (flags.trace) {
    request.on_round = [&](const RoundInfo& round) {
      bar.finish();
      print_round(round, *pair.target);
    };
  }
  const DecodeStats reading = keep_prompt(session, flags.kept, request);
  GenerateResult result = session.generate(request);
  add_reading(reading, result);
  bar.finish();
  if (!flags.output.json) write_stdout(flags.trace ? result.text + "\n" : "\n");
  std::optional<OutputCheck> check;
  if (flags.check && result.finish_reason != "cancelled") {
    check = check_output(pair.target, pair.options, request, result);
  }
  if (flags.output.json) print_json(flags, result, pair, prompt, check);
  if (!flags.output.quiet) {
    if (sampling.temperature > 0 && !flags.sampling.seed) {
      print_note("seed " + std::to_string(result.seed) +
                 (result.stats.reproducible ? "" : ", which alone does not give this text again"));
    }
    print_speed(result, *pair.target);
  }
  if (result.finish_reason == "cancelled" || (check && check->cancelled))
    return interrupt_exit_code();
  return check ? report_check(*check, flags.output.quiet) : kExitOk;
}

}  // namespace specdec::cli
