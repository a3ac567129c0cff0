// `specdec inspect FILE`: metadata and tensors of a GGUF file; the weights are not read.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/inspect_report.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/model_info.h"
#include "engine/pair.h"
#include "engine/session.h"
#include "gguf/reader.h"
#include "kv/kv_file.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace specdec::cli {
namespace {

struct InspectFlags {
  std::string model, draft;
  int n_ctx = kDefaultContext;
  ModelFlags gpu;  // -ngl, -ngld, --vram-budget, --kv-type
  bool json = false, tensors = false, keys = false, chat_template = false;
};

// The draft model and the model on a GPU with the budget given, whatever GPU is here; empty without
// a budget.
std::vector<std::string> placement_of(const InspectFlags& flags) {
  if (flags.gpu.vram_budget == 0) return {};
  ModelFlags model_flags = flags.gpu;
  model_flags.n_ctx = flags.n_ctx;
  const ModelOptions draft = model_options(model_flags, true);
  const ModelOptions target = model_options(model_flags, false);
  std::vector<PlannedModel> models;
  if (!flags.draft.empty()) models.push_back({"draft", flags.draft, &draft});
  models.push_back({flags.draft.empty() ? "model" : "target", flags.model, &target});
  return plan_files(models, 0, nullptr).lines();
}

// False: help was asked for and shown.
bool parse_flags(const Arguments& arguments, InspectFlags& flags) {
  ArgParser parser("inspect", "FILE [OPTIONS]",
                   "Shows what a GGUF file holds, without reading its weights, a prompt that "
                   "--prompt-cache keeps, or how much a --memory holds.");
  std::string file_argument;
  parser.positional("FILE", &file_argument, "The file; -m FILE does the same.");
  parser.section("Options");
  parser.add(opt::kFilesModel, &flags.model);
  parser.add(opt::kFilesDraft, &flags.draft);
  parser.add(opt::kInspectNCtx, &flags.n_ctx);
  parser.add(opt::kModelKvType, &flags.gpu.kv_type);
  add_gpu_flags(parser, flags.gpu);
  add_draft_gpu_flag(parser, flags.gpu);
  parser.epilogue(
      "With -md it also tells whether that model can draft for FILE, and why not.\n"
      "With --vram-budget it also tells how the models would be placed on a GPU, about.");
  parser.add(opt::kOutputJson, &flags.json);
  parser.add(opt::kInspectKeys, &flags.keys);
  parser.add(opt::kInspectTensors, &flags.tensors);
  parser.add(opt::kInspectChatTemplate, &flags.chat_template);
  if (!parser.parse(arguments)) {
    write_stdout(parser.help());
    return false;
  }
  if (!flags.model.empty() && !file_argument.empty())
    throw UsageError("give the file to inspect either as FILE or with -m, not both");
  if (flags.model.empty()) flags.model = file_argument;
  if (flags.model.empty()) throw UsageError("no file to inspect");

  if (flags.json && flags.chat_template)
    throw UsageError("give either --chat-template or --json, which holds it, not both");
  if (flags.draft.empty() && parser.was_given(opt::kFilesNGpuLayersDraft))
    throw UsageError(flag_name(opt::kFilesNGpuLayersDraft) + " needs a draft model: -md FILE");
  for (const OptionSpec* spec : {&opt::kModelNGpuLayers, &opt::kFilesNGpuLayersDraft}) {
    if (parser.was_given(*spec) && !parser.was_given(opt::kModelVramBudget))
      throw UsageError(flag_name(*spec) + " needs --vram-budget, which asks for a plan");
  }
  return true;
}

// What the other flags ask for is in no kept prompt, nor in a memory.
void require_only_json(const InspectFlags& flags, const char* what) {
  if (flags.draft.empty() && !flags.tensors && !flags.keys && !flags.chat_template &&
      flags.gpu.vram_budget == 0)
    return;
  throw UsageError(quoted(flags.model) + " is " + what + ", not a model: only --json goes with it");
}

}  // namespace

int run_inspect(const Arguments& arguments) {
  InspectFlags flags;
  if (!parse_flags(arguments, flags)) return kExitOk;

  const AbortOnInterrupt abort;
  if (KvFile::is_one(flags.model)) {
    require_only_json(flags, "a kept prompt (--prompt-cache)");
    const KvFile kept(flags.model);
    write_stdout(flags.json ? inspect_kept_json(kept) : inspect_kept(kept));
    return kExitOk;
  }
  if (MemoryFile::is_one(flags.model)) {
    require_only_json(flags, "a memory of earlier requests (--memory)");
    const MemoryFile memory(flags.model);
    write_stdout(flags.json ? inspect_memory_json(memory) : inspect_memory(memory));
    return kExitOk;
  }
  const auto file = GgufFile::open(flags.model);
  if (flags.chat_template) {
    const std::string text = chat_template_of(*file);
    if (text.empty()) {
      throw Error(ErrorCode::kUnsupported, printable(flags.model, 400) + " has no chat template");
    }
    write_stdout(replace_invalid_utf8(text) + "\n");
    return kExitOk;
  }
  Inspected seen{.file = file,
                 .info = describe_model(*file),
                 .tokenizer = FileTokenizer(*file),
                 .draft = std::nullopt,
                 .pair = std::nullopt,
                 .placement = {}};
  if (!flags.draft.empty()) {
    const auto draft_file = GgufFile::open(flags.draft);
    seen.draft = describe_model(*draft_file);
    seen.pair = check_pair(*file, *draft_file);
  }
  seen.placement = placement_of(flags);
  if (flags.json) {
    write_stdout(inspect_json(seen, flags.n_ctx, flags.tensors));
    return kExitOk;
  }
  std::string out = inspect_summary(seen, flags.n_ctx);
  if (flags.keys) out += inspect_keys(*file);
  if (flags.tensors) out += inspect_tensors(*file);
  file->check_whole();
  write_stdout(out);
  return kExitOk;
}

}  // namespace specdec::cli
