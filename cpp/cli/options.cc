#include "cli/options.h"

#include <algorithm>
#include <charconv>
#include <random>

#include "base/error.h"
#include "base/read_real.h"
#include "cli/interrupt.h"
#include "cli/terminal.h"
#include "cli/text_input.h"

namespace specdec::cli {
namespace {

// "15043+1.5", "15043-inf"
std::pair<TokenId, float> parse_logit_bias(const std::string& text) {
  TokenId token = -1;
  const char* end = text.data() + text.size();
  const auto id = std::from_chars(text.data(), end, token);
  if (id.ec == std::errc() && token >= 0 && id.ptr != end && (*id.ptr == '+' || *id.ptr == '-')) {
    float value = 0;
    const auto number = read_real(id.ptr + 1, end, value);
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

std::uint64_t parse_seed(const std::string& text) {
  std::uint64_t seed = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, seed);
  if (result.ec == std::errc() && result.ptr == end) return seed;
  throw UsageError(flag_name(opt::kSamplingParamsSeed) +
                   " takes a whole number from 0 to 2^64 - 1, or -1, got " + quoted(text));
}

}  // namespace

void add_gpu_flags(ArgParser& parser, ModelFlags& flags) {
  parser.add(opt::kModelNGpuLayers,
             [&flags](const std::string& v) { flags.n_gpu_layers = parse_layers("-ngl", v); });
  parser.add(opt::kModelVramBudget, [&flags](const std::string& v) {
    try {
      flags.vram_budget = parse_bytes("--vram-budget", v);
    } catch (const Error& error) {
      throw UsageError(error.what());
    }
  });
}

void add_draft_gpu_flag(ArgParser& parser, ModelFlags& flags) {
  parser.add(opt::kFilesNGpuLayersDraft, [&flags](const std::string& v) {
    flags.n_gpu_layers_draft = parse_layers("-ngld", v);
  });
}

void add_model_flags(ArgParser& parser, ModelFlags& flags) {
  parser.section("Model");
  parser.add(opt::kFilesModel, &flags.model);
  parser.add(opt::kModelNThreads, &flags.n_threads);
  parser.add(opt::kModelKvType, &flags.kv_type);
  parser.add(opt::kModelRepack, &flags.repack);
  parser.add(opt::kModelCheckTensors, &flags.check_tensors);
  parser.add(opt::kModelDevice, &flags.device);
  add_gpu_flags(parser, flags);
}

void add_draft_model_flags(ArgParser& parser, ModelFlags& flags) {
  parser.add(opt::kFilesDraft, &flags.draft);
  parser.add(opt::kModelRequantize, &flags.draft_quant);
  add_draft_gpu_flag(parser, flags);
}

void add_prompt_flags(ArgParser& parser, PromptFlags& flags) {
  parser.section("Prompt");
  parser.add(opt::kPromptPrompt, &flags.prompt);
  parser.add(opt::kPromptFile, &flags.file);
  parser.add(opt::kPromptEscape, &flags.escape);
}

void add_sampling_flags(ArgParser& parser, SamplingFlags& flags) {
  SamplingParams& p = flags.params;
  parser.section("Sampling");
  parser.add(opt::kSamplingParamsSeed, [&flags](const std::string& v) {
    flags.seed.reset();
    if (v != "-1") flags.seed = parse_seed(v);
  });
  parser.add(opt::kSamplingParamsTemperature, &p.temperature);
  parser.add(opt::kSamplingParamsTopK, &p.top_k);
  parser.add(opt::kSamplingParamsTopP, &p.top_p);
  parser.add(opt::kSamplingParamsMinP, &p.min_p);
  parser.add(opt::kSamplingParamsNoiseScale, &p.noise_scale);
  parser.add(opt::kSamplingParamsRepetitionPenalty, &p.repetition_penalty);
  parser.add(opt::kSamplingParamsPenaltyLastN, &p.penalty_last_n);
  parser.add(opt::kSamplingParamsPresencePenalty, &p.presence_penalty);
  parser.add(opt::kSamplingParamsFrequencyPenalty, &p.frequency_penalty);
  parser.add(opt::kSamplingParamsLogitBias,
             [&p](const std::string& v) { p.logit_bias.push_back(parse_logit_bias(v)); });
}

void add_output_flags(ArgParser& parser, OutputFlags& flags) {
  parser.section("Output");
  parser.add(opt::kOutputQuiet, &flags.quiet);
  parser.add(opt::kOutputVerbose, &flags.verbose);
}

void check_model_flags(const ArgParser& parser, const ModelFlags& flags) {
  if (flags.model.empty()) throw UsageError("no model: give a GGUF file with -m");
  if (!flags.draft.empty()) return;
  for (const OptionSpec* spec : {&opt::kModelRequantize, &opt::kFilesNGpuLayersDraft}) {
    if (parser.was_given(*spec))
      throw UsageError(flag_name(*spec) + " needs a draft model: -md FILE");
  }
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
  const bool has_text = parser.was_given(opt::kPromptPrompt);
  const bool has_file = parser.was_given(opt::kPromptFile);
  if (has_text && has_file) throw UsageError("give either -p TEXT or -f FILE, not both");
  if (!has_text && !has_file) throw UsageError("no prompt: give -p TEXT or -f FILE");
  if (has_file && flags.escape) throw UsageError("--escape is for -p, not for -f");
  if (has_file) return read_file(flags.file);
  return flags.escape ? process_escapes(flags.prompt) : flags.prompt;
}

SamplingParams resolve_sampling(const SamplingFlags& flags) {
  SamplingParams params = flags.params;
  // 32 bits are easy to type again.
  params.seed = flags.seed ? *flags.seed : std::random_device{}();
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
  std::string how = std::to_string(info.n_threads) + " threads, repack " + info.repack +
                    ", KV cache " + info.kv_type;
  if (info.n_ctx > 0) how += ", context " + std::to_string(info.n_ctx);
  if (info.vram_budget > 0) how += ", GPU budget " + bytes_text(info.vram_budget);
  if (info.kept_weight_bytes > 0)
    how += ", " + bytes_text(info.kept_weight_bytes) + " of packed weights from their file";
  print_note(printable(info.path, 400) + ": " + info.quantisation + ", " + how);
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

}  // namespace specdec::cli
