#include "cli/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <random>

#include "base/error.h"
#include "cli/interrupt.h"
#include "cli/terminal.h"
#include "cli/text_input.h"
#include "engine/pair.h"

namespace specdec::cli {
namespace {

constexpr int kMaxInt = std::numeric_limits<int>::max();

// "15043+1.5", "15043-inf"
std::pair<TokenId, float> parse_logit_bias(const std::string& text) {
  TokenId token = -1;
  const char* end = text.data() + text.size();
  const auto id = std::from_chars(text.data(), end, token);
  if (id.ec == std::errc() && token >= 0 && id.ptr != end && (*id.ptr == '+' || *id.ptr == '-')) {
    float value = 0;
    const auto number = std::from_chars(id.ptr + 1, end, value);
    if (number.ec == std::errc() && number.ptr == end && id.ptr + 1 != end && id.ptr[1] != '-') {
      return {token, *id.ptr == '-' ? -value : value};
    }
  }
  throw UsageError("--logit-bias takes ID+VALUE or ID-VALUE, e.g. 15043+1 or 15043-inf, got " +
                   quoted(text));
}

// "auto" or a number of layers
int parse_layers(const char* option, const std::string& text) {
  if (text == "auto") return -1;
  int n = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, n);
  if (result.ec == std::errc() && result.ptr == end && n >= 0 && n <= 100000) return n;
  throw UsageError(std::string(option) +
                   " takes a number of layers from 0 to 100000 or auto, got " + quoted(text));
}

// \n \t \r \0 \\ \" \' \xHH; anything else stays as it is.
std::string process_escapes(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    const char c = text[++i];
    switch (c) {
      case 'n':
        out += '\n';
        break;
      case 't':
        out += '\t';
        break;
      case 'r':
        out += '\r';
        break;
      case '0':
        out += '\0';
        break;
      case '\\':
      case '"':
      case '\'':
        out += c;
        break;
      case 'x': {
        unsigned value = 0;
        const char* begin = text.data() + i + 1;
        const char* end = begin + std::min<std::size_t>(2, text.size() - i - 1);
        const auto result = std::from_chars(begin, end, value, 16);
        if (result.ec == std::errc() && result.ptr == begin + 2) {
          out += static_cast<char>(value);
          i += 2;
        } else {
          out += "\\x";
        }
        break;
      }
      default:
        out += '\\';
        out += c;
    }
  }
  return out;
}

}  // namespace

void add_gpu_flags(ArgParser& parser, ModelFlags& flags) {
  parser.choice("--device", "NAME", &flags.device, {"auto", "cpu", "cuda"},
                "auto: the first CUDA GPU, where there is one (default); cpu; cuda: fail without.");
  parser.custom(
      "-ngl --gpu-layers --n-gpu-layers", "N",
      [&flags](const std::string& v) { flags.n_gpu_layers = parse_layers("-ngl", v); },
      "Layers on the GPU, counted from the last; the output head goes with them. auto: as many as "
      "fit (default). A number that does not fit, or no GPU, is an error.");
  parser.custom(
      "--vram-budget", "SIZE",
      [&flags](const std::string& v) {
        try {
          flags.vram_budget = parse_bytes("--vram-budget", v);
        } catch (const Error& error) {
          throw UsageError(error.what());
        }
      },
      "GPU memory that weights, caches and work space may take, e.g. 4GiB (default: what is "
      "free).");
}

void add_draft_gpu_flag(ArgParser& parser, ModelFlags& flags) {
  parser.custom(
      "-ngld --gpu-layers-draft --n-gpu-layers-draft", "N",
      [&flags](const std::string& v) { flags.n_gpu_layers_draft = parse_layers("-ngld", v); },
      "As -ngl, for the draft model, which is placed first.");
}

void add_model_flags(ArgParser& parser, ModelFlags& flags) {
  parser.section("Model");
  parser.text("-m --model", "FILE", &flags.model, "The model, a GGUF file.");
  parser.integer("-t --threads", "N", &flags.n_threads, 0, 256,
                 "Threads (default: one per core this process may use).");
  parser.integer("-c --ctx-size", "N", &flags.n_ctx, 0, kMaxInt,
                 "Context length in tokens (default 0: the model's own, at most 4096).");
  parser.choice("-ctk --cache-type-k --kv-type", "TYPE", &flags.kv_type, {"f32", "f16", "q8_0"},
                "Elements of the KV cache: f32, f16, q8_0 (default f16).");
  parser.choice("--repack", "MODE", &flags.repack, {"auto", "off"},
                "off: leave the weights in the file instead of repacking them for the kernels: "
                "slower, in little memory, same results (default auto).");
  parser.flag("--check-tensors", &flags.check_tensors,
              "Read all weights first and refuse NaN and infinity.");
  add_gpu_flags(parser, flags);
}

void add_draft_model_flags(ArgParser& parser, ModelFlags& flags) {
  parser.text("-md --model-draft", "FILE", &flags.draft,
              "A smaller model with the same vocabulary that drafts ahead.");
  parser.choice("--draft-quant", "TYPE", &flags.draft_quant,
                {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0"},
                "Rewrite the draft model's weights at load where that makes them smaller.");
  add_draft_gpu_flag(parser, flags);
}

void add_prompt_flags(ArgParser& parser, PromptFlags& flags) {
  parser.section("Prompt");
  parser.text("-p --prompt", "TEXT", &flags.prompt, "The prompt. Special tokens are recognised.");
  parser.text("-f --file", "FILE", &flags.file,
              "Read the prompt from a file (-: standard input); one final newline is dropped.");
  parser.flag("-e --escape", &flags.escape, "Understand \\n, \\t, \\xHH and so on in -p.");
}

void add_sampling_flags(ArgParser& parser, SamplingFlags& flags, double temperature) {
  SamplingParams& p = flags.params;
  p.temperature = temperature;
  p.top_k = 40;
  p.top_p = 0.95;
  p.min_p = 0.05;
  parser.section("Sampling");
  parser.integer("-s --seed", "N", &flags.seed, -1, std::numeric_limits<std::int64_t>::max(),
                 "Random seed (default -1: a new one each time, printed).");
  parser.number("--temp --temperature", "T", &p.temperature, 0, 1000,
                temperature == 0 ? "Temperature (default 0: always the most probable token)."
                                 : "Temperature (default 0.7; 0: always the most probable token).");
  parser.integer("--top-k", "K", &p.top_k, 0, kMaxInt,
                 "Keep the K best tokens (default 40; 0: all).");
  parser.number("--top-p", "P", &p.top_p, 0, 1,
                "Keep the best tokens that make up P of the probability (default 0.95; 1: all).");
  parser.number("--min-p", "P", &p.min_p, 0, 1,
                "Drop tokens below P times the best one's probability (default 0.05; 0: none).");
  parser.number("--noise-scale", "S", &p.noise_scale, 0, 100,
                "Two-stage sampling: Gaussian noise on the logits that are left (default 0: off).");
  parser.number("--repeat-penalty", "R", &p.repetition_penalty, 0, 100,
                "Penalty on tokens seen before (default 1: off).");
  parser.integer("--repeat-last-n", "N", &p.penalty_last_n, -1, kMaxInt,
                 "How many tokens back penalties look (default 64; 0: off, -1: all).");
  parser.number("--presence-penalty", "A", &p.presence_penalty, -100, 100,
                "Subtracted from the logit of tokens seen before (default 0).");
  parser.number("--frequency-penalty", "A", &p.frequency_penalty, -100, 100,
                "The same, once per occurrence (default 0).");
  parser.custom(
      "--logit-bias", "ID(+|-)VALUE",
      [&p](const std::string& v) { p.logit_bias.push_back(parse_logit_bias(v)); },
      "Add VALUE to a token's logit, e.g. 15043+1; 15043-inf bans it. Repeatable.");
}

namespace {

// Whether a list with commas has this name.
bool lists(const std::string& list, const std::string& name) {
  return ("," + list + ",").find("," + name + ",") != std::string::npos;
}

void check_drafters(const std::string& list) {
  std::string rest = list + ",";
  while (!rest.empty()) {
    const std::string name = rest.substr(0, rest.find(','));
    rest.erase(0, name.size() + 1);
    const std::vector<std::string>& known = drafter_names();
    const bool alone = name == "none" || name == "auto";
    if (std::find(known.begin(), known.end(), name) == known.end() || (alone && name != list)) {
      std::string text = "--drafter is " + printable(list, 100) + ", expected one of";
      for (const std::string& choice : known) text += " " + choice;
      throw UsageError(text + ", or several of them with commas, without none and auto");
    }
  }
}

}  // namespace

void add_draft_flags(ArgParser& parser, DraftFlags& flags) {
  SessionOptions& o = flags.options;
  parser.section("Speculative decoding");
  parser.custom(
      "--drafter", "NAME[,NAME...]",
      [&o](const std::string& v) {
        check_drafters(v);
        o.drafter = v;
      },
      "none: plain decoding; model: the -md model; ngram, suffix: repetitions in prompt "
      "and output; recycling: the model's second choices; layerskip: its own first layers; "
      "auto (default): ngram, suffix and, with -md, model. Of auto and of a list each pass "
      "uses who is expected to be fastest, or none; a single one drafts at a fixed length.");
  parser.choice("--verify", "NAME", &o.verifier, verifier_names(),
                "How drafts are checked (default auto: greedy at temperature 0, match above). "
                "topk_importance_published is not lossless.");
  parser.integer("--draft --draft-n --spec-draft-n-max --draft-max", "N", &o.draft_max, 0, 64,
                 "Longest draft (default: 4 for model, 7 for ngram, else 15).");
  parser.integer("--spec-draft-n-min --draft-min", "N", &o.draft_min, 0, 64,
                 "Shorter drafts are not used (default 0).");
  parser.integer("--gamma", "N", &o.gamma, 0, 64, "Fix the draft length; 0 decodes plainly.");
  parser.choice("--draft-sampling", "NAME", &o.draft_sampling,
                {"auto", "greedy", "sampled", "coupled"},
                "How the draft model picks tokens (default auto).");
  parser.integer("--draft-head", "N", &o.draft_head, -1, kMaxInt,
                 "Draft only token ids below N and those of the text: a shorter output head "
                 "(default -1: 32768 for large vocabularies; 0: all).");
  parser.number("--draft-temp", "T", &o.draft_temperature, 0, 1000,
                "Temperature of sampled and coupled drafts (default: the target's).");
  parser.integer("--draft-top-k", "K", &o.draft_top_k, 0, kMaxInt,
                 "Draft from the draft model's K best tokens (default 0: as --top-k; 50 for "
                 "topk_importance).");
  parser.integer("--draft-branch", "B", &o.draft_branch, 1, 16,
                 "Candidates per position; above 1 with greedy, match or topk_importance "
                 "(default 1).");
  parser.integer("--ngram-n", "N", &o.ngram_n, 2, 16,
                 "Longest n-gram that is looked up (default 5).");
  parser.integer("--ngram-min-count", "N", &o.ngram_min_count, 1, kMaxInt,
                 "Use continuations seen at least N times (default 1).");
  parser.integer("--draft-layers", "N", &o.draft_layers, 0, 1000,
                 "Layers that layerskip drafts with (default 0: a quarter of the model's).");
  parser.integer("--suffix-min-match", "N", &o.suffix_min_match, 1, 64,
                 "Shortest match that suffix drafts from (default 1).");
  parser.text("--suffix-corpus", "FILE", &flags.suffix_corpus,
              "A text in which suffix looks for matches as well.");
  parser.integer("--recycling-top-k", "K", &o.recycling_top_k, 1, 32,
                 "Successors that recycling remembers per token (default 8).");
  parser.integer("--filler-top-k", "K", &o.ngram_filler_top_k, 0, 64,
                 "Also learn from the target's K best tokens of each position (default 0).");
}

void add_output_flags(ArgParser& parser, OutputFlags& flags, bool with_json) {
  parser.section("Output");
  if (with_json) parser.flag("--json", &flags.json, "Print one JSON object on standard output.");
  parser.flag("-q --quiet", &flags.quiet, "Nothing on standard error but warnings and errors.");
  parser.flag("-v --verbose", &flags.verbose, "Also say what is odd about the files.");
  parser.flag("--no-color", &flags.no_color,
              "No colours; NO_COLOR in the environment does the same.");
}

void check_model_flags(const ModelFlags& flags) {
  if (flags.model.empty()) throw UsageError("no model: give a GGUF file with -m");
}

std::string read_file(const std::string& path) {
  std::string text = read_all(path);
  if (text.ends_with("\r\n")) {
    text.resize(text.size() - 2);
  } else if (text.ends_with('\n')) {
    text.pop_back();
  }
  return text;
}

std::string read_prompt(const ArgParser& parser, const PromptFlags& flags) {
  const bool has_text = parser.was_given("-p"), has_file = parser.was_given("-f");
  if (has_text && has_file) throw UsageError("give either -p TEXT or -f FILE, not both");
  if (!has_text && !has_file) throw UsageError("no prompt: give -p TEXT or -f FILE");
  if (has_file) return read_file(flags.file);
  return flags.escape ? process_escapes(flags.prompt) : flags.prompt;
}

SamplingParams resolve_sampling(const SamplingFlags& flags) {
  SamplingParams params = flags.params;
  if (flags.seed >= 0) {
    params.seed = static_cast<std::uint64_t>(flags.seed);
  } else {
    // 32 bits are easy to type again.
    params.seed = std::random_device{}();
  }
  params.validate();
  return params;
}

ModelOptions model_options(const ModelFlags& flags, bool is_draft) {
  ModelOptions options;
  options.n_threads = flags.n_threads;
  options.kv_type = flags.kv_type;
  options.repack = flags.repack;
  options.check_tensors = flags.check_tensors;
  if (is_draft) options.requantize = flags.draft_quant;
  options.n_gpu_layers = is_draft ? flags.n_gpu_layers_draft : flags.n_gpu_layers;
  options.vram_budget = flags.vram_budget;
  options.n_ctx = flags.n_ctx;
  options.device = flags.device;
  return options;
}

void print_placement(const ModelInfo& info) {
  for (const std::string& line : info.placement) print_note(line);
  if (!info.cpu_reason.empty()) print_note("on the CPU: " + info.cpu_reason);
}

std::shared_ptr<const LoadedModel> load_model(const std::string& path, const ModelFlags& flags,
                                              const OutputFlags& output, bool is_draft) {
  ModelOptions options = model_options(flags, is_draft);
  ProgressBar bar("loading " + printable(path.substr(path.find_last_of('/') + 1), 40),
                  !output.quiet);
  options.on_progress = [&bar](double fraction) { bar.update(fraction); };
  std::shared_ptr<const LoadedModel> model;
  {
    const AbortOnInterrupt abort;
    model = LoadedModel::load(path, options);
  }
  bar.finish();
  if (output.verbose) {
    for (const std::string& warning : model->info().warnings)
      print_warning(printable(warning, 400));
    print_placement(model->info());
  }
  return model;
}

Session make_session(const LoadedPair& pair) {
  const AbortOnInterrupt abort;
  return Session(pair.target, pair.options);
}

LoadedPair load_pair(const ModelFlags& flags, const DraftFlags& draft, const OutputFlags& output) {
  LoadedPair pair;
  pair.options = draft.options;
  pair.options.n_ctx = flags.n_ctx;
  pair.options.kv_type = flags.kv_type;
  if (!draft.suffix_corpus.empty()) pair.options.suffix_corpus = read_file(draft.suffix_corpus);
  const std::string& drafter = pair.options.drafter;
  const bool uses_model = lists(drafter, "model");
  if (uses_model && flags.draft.empty()) {
    throw UsageError("--drafter " + drafter + " needs a draft model: -md FILE");
  }
  const bool drafts = !flags.draft.empty() && (uses_model || drafter == "auto");
  if (!flags.draft.empty() && !drafts && !output.quiet)
    print_note("-md is not used with --drafter " + drafter);
  // The draft model runs most often: it is the first to be placed on a GPU.
  if (drafts) {
    pair.options.draft = load_model(flags.draft, flags, output, true);
    pair.load_ms = pair.options.draft->info().load_ms;
  }
  pair.target = load_model(flags.model, flags, output);
  pair.load_ms += pair.target->info().load_ms;
  if (!drafts) return pair;
  const PairReport report = check_pair(*pair.target, *pair.options.draft);
  if (report.compatible && !output.quiet) {
    for (const std::string& warning : report.warnings) print_warning(warning);
  }
  return pair;
}

}  // namespace specdec::cli
