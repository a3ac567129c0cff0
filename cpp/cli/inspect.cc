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
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/model_info.h"
#include "engine/pair.h"
#include "engine/session.h"
#include "gguf/reader.h"
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

std::string chat_template_of(const GgufFile& file) {
  const GgufValue* value = file.find("tokenizer.chat_template");
  if (value == nullptr || value->type() != GgufType::kString) return {};
  return std::string(value->as_string());
}

// A file's tokenizer, or why it cannot be read.
struct FileTokenizer {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::vector<std::string> warnings;

  explicit FileTokenizer(const GgufFile& file) : warnings(file.warnings()) {
    try {
      tokenizer = Tokenizer::from_gguf(file);
      for (const std::string& warning : tokenizer->warnings()) warnings.push_back(warning);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kModelFormat && error.code() != ErrorCode::kUnsupported) throw;
      warnings.push_back(std::string("tokenizer: ") + error.what());
    }
  }
};

std::string token_text(const Tokenizer& tokenizer, const std::optional<TokenId>& id) {
  if (!id) return "none";
  return std::to_string(*id) + " '" + printable(tokenizer.token_text(*id), 40) + "'";
}

std::string special_tokens_text(const Tokenizer& tokenizer) {
  std::string text = "BOS " + token_text(tokenizer, tokenizer.bos_id());
  text += tokenizer.add_bos() ? ", put before a prompt; ends:" : ", not put before a prompt; ends:";
  for (const TokenId id : tokenizer.eog_ids()) text += " " + token_text(tokenizer, id);
  return text + (tokenizer.eog_ids().empty() ? " none" : "");
}

void write_special_tokens(JsonWriter& json, const Tokenizer* tokenizer) {
  json.key("special_tokens");
  if (tokenizer == nullptr) {
    json.null();
    return;
  }
  json.begin_object()
      .member("bos_id", tokenizer->bos_id())
      .member("add_bos", tokenizer->add_bos())
      .member("eos_id", tokenizer->eos_id())
      .member("eot_id", tokenizer->eot_id())
      .member("unknown_id", tokenizer->unknown_id())
      .member("padding_id", tokenizer->padding_id())
      .member("end_ids", tokenizer->eog_ids())
      .end_object();
}

std::string shape_text(const TensorInfo& tensor) {
  std::string out;
  for (const std::uint64_t n : tensor.shape) out += (out.empty() ? "" : " x ") + std::to_string(n);
  return out;
}

std::string group_digits(std::uint64_t n) {
  std::string digits = std::to_string(n);
  for (std::size_t i = digits.size(); i > 3;) {
    i -= 3;
    digits.insert(i, 1, ' ');
  }
  return digits;
}

void write_json_value(JsonWriter& json, const GgufValue& value) {
  if (value.is_array()) {
    // Arrays may hold a whole vocabulary: their kind and size are what one wants to see.
    json.begin_object().member("type", value.type_name()).member("count", value.count());
    json.member("preview", value.to_display_string()).end_object();
  } else if (value.type() == GgufType::kString) {
    json.value(value.as_string());
  } else if (value.type() == GgufType::kBool) {
    json.value(value.as_bool());
  } else if (value.type() == GgufType::kF32 || value.type() == GgufType::kF64) {
    json.value(value.as_f64());
  } else if (value.type() == GgufType::kU64) {
    json.value(value.as_u64());
  } else {
    json.value(value.as_i64());
  }
}

// What decoding with a model keeps in memory. Weights are repacked into about as many bytes.
struct Memory {
  std::uint64_t weights = 0;
  std::uint64_t cache_per_token = 0;  // F16
};

Memory memory_of(const ModelInfo& info) {
  // The file may claim anything.
  const auto sane = [](std::int64_t n) {
    return static_cast<std::uint64_t>(std::clamp<std::int64_t>(n, 0, 1 << 16));
  };
  return {.weights = info.weight_bytes,
          .cache_per_token = 4 * sane(info.n_layers) * sane(info.n_kv_heads) * sane(info.head_dim)};
}

double cache_bytes(const Memory& memory, int n_ctx) {
  return static_cast<double>(memory.cache_per_token) * n_ctx;
}

double total_bytes(const Memory& memory, int n_ctx) {
  return static_cast<double>(memory.weights) + cache_bytes(memory, n_ctx);
}

void write_memory(JsonWriter& json, const Memory& memory, int n_ctx) {
  json.begin_object()
      .member("weights_bytes", memory.weights)
      .member("cache_bytes_per_token", memory.cache_per_token)
      .member("n_ctx", n_ctx)
      .member("total_bytes", total_bytes(memory, n_ctx))
      .end_object();
}

std::string memory_text(const Memory& memory, int n_ctx) {
  return human_bytes(static_cast<double>(memory.weights)) + " weights + " +
         human_bytes(cache_bytes(memory, n_ctx)) + " F16 cache for " + std::to_string(n_ctx) +
         " tokens";
}

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

void print_json(const GgufFile& file, const ModelInfo& info, const ModelInfo* draft,
                const FileTokenizer& tokenizer, const PairReport* pair, const InspectFlags& flags,
                const std::vector<std::string>& placement) {
  JsonWriter json;
  json.begin_object();
  json.member("path", info.path)
      .member("gguf_version", static_cast<std::int64_t>(file.version()))
      .member("architecture", info.architecture)
      .member("name", info.name)
      .member("n_params", info.n_params)
      .member("size_bytes", info.size_bytes)
      .member("weight_bytes", info.weight_bytes)
      .member("bytes_per_step", info.bytes_per_step)
      .member("quantisation", info.quantisation);
  json.key("tensor_types").begin_object();
  for (const auto& [name, n] : info.tensor_types) json.member(name, n);
  json.end_object();
  json.member("context_length", info.context_length)
      .member("vocab_size", info.vocab_size)
      .member("n_vocab_rows", info.n_vocab_rows)
      .member("n_layers", info.n_layers)
      .member("hidden_size", info.hidden_size)
      .member("ffn_size", info.ffn_size)
      .member("n_heads", info.n_heads)
      .member("n_kv_heads", info.n_kv_heads)
      .member("head_dim", info.head_dim)
      .member("tied_head", info.tied_head)
      .member("tokenizer", info.tokenizer);
  write_special_tokens(json, tokenizer.tokenizer.get());
  json.key("chat_template");
  const std::string chat_template = chat_template_of(file);
  chat_template.empty() ? json.null() : json.value(chat_template);
  json.member("n_tensors", static_cast<std::uint64_t>(file.tensors().size()));
  json.key("metadata").begin_object();
  for (const GgufEntry& entry : file.entries()) {
    json.key(entry.key);
    write_json_value(json, entry.value);
  }
  json.end_object();
  if (flags.tensors) {
    json.key("tensors").begin_array();
    for (const TensorInfo& tensor : file.tensors()) {
      json.begin_object()
          .member("name", tensor.name)
          .member("type", dtype_traits(tensor.dtype).name)
          .member("shape", tensor.shape)
          .member("offset", tensor.offset)
          .member("n_bytes", tensor.n_bytes)
          .end_object();
    }
    json.end_array();
  }
  json.key("memory");
  write_memory(json, memory_of(info), flags.n_ctx);
  if (draft != nullptr) {
    json.key("draft_memory");
    write_memory(json, memory_of(*draft), flags.n_ctx);
  }
  if (pair != nullptr) {
    json.key("pair").begin_object();
    json.member("compatible", pair->compatible)
        .member("identical", pair->identical)
        .member("reason", pair->reason)
        .member("n_target_tokens", pair->n_target_tokens)
        .member("n_draft_tokens", pair->n_draft_tokens)
        .member("n_shared_tokens", pair->n_shared_tokens)
        .member("first_difference", pair->first_difference)
        .member("cost_ratio", pair->cost_ratio)
        .member("warnings", pair->warnings)
        .end_object();
  }
  if (!placement.empty()) json.member("placement", placement);
  json.member("warnings", tokenizer.warnings);
  json.end_object();
  write_stdout(json.text() + "\n");
}

std::string padded(std::string text, std::size_t width) {
  text.resize(std::max(text.size() + 2, width), ' ');
  return text;
}

std::string summary(const GgufFile& file, const ModelInfo& info, const ModelInfo* draft,
                    const FileTokenizer& tokenizer, const PairReport* pair, int n_ctx,
                    const std::vector<std::string>& placement) {
  std::string out;
  const auto line = [&out](const char* label, const std::string& text) {
    if (!text.empty()) out += padded(label, 16) + text + "\n";
  };
  const auto count = [](std::int64_t n) { return n == 0 ? std::string() : std::to_string(n); };
  line("file", printable(info.path, 400));
  line("name", info.name);
  line("architecture", info.architecture);
  line("parameters", group_digits(info.n_params));
  line("size", human_bytes(static_cast<double>(info.size_bytes)));
  std::string types = info.quantisation + "  (";
  for (const auto& [name, n] : info.tensor_types) {
    types += std::to_string(n) + " " + name + (name == info.tensor_types.back().first ? ")" : ", ");
  }
  if (!info.tensor_types.empty()) line("weights", types);
  line("layers", count(info.n_layers));
  line("hidden size", count(info.hidden_size));
  line("feed-forward", count(info.ffn_size));
  if (info.n_heads > 0) {
    line("heads", count(info.n_heads) + " of " + count(info.head_dim) + ", " +
                      count(info.n_kv_heads) + " for keys and values");
  }
  line("context", count(info.context_length));
  line("vocabulary",
       count(info.vocab_size) + (info.tied_head ? " (head shared with the embedding)" : ""));
  line("tokenizer", info.tokenizer);
  if (tokenizer.tokenizer != nullptr)
    line("special tokens", special_tokens_text(*tokenizer.tokenizer));
  line("chat template", chat_template_of(file).empty() ? "none" : "yes (--chat-template shows it)");
  line("GGUF", "version " + std::to_string(file.version()) + ", " +
                   std::to_string(file.entries().size()) + " keys, " +
                   std::to_string(file.tensors().size()) + " tensors");
  line("memory", memory_text(memory_of(info), n_ctx));
  if (draft != nullptr) {
    line("draft", printable(draft->path, 400));
    line("draft memory", memory_text(memory_of(*draft), n_ctx));
    line("together",
         human_bytes(total_bytes(memory_of(info), n_ctx) + total_bytes(memory_of(*draft), n_ctx)));
  }
  if (pair != nullptr) {
    line("pair", (pair->compatible ? "yes: " : "no: ") + pair->reason);
    for (const std::string& text : pair->warnings) line("", text);
  }
  for (const std::string& text : placement) line("on a GPU", text);
  for (const std::string& warning : tokenizer.warnings) line("warning", warning);
  return out;
}

}  // namespace

int run_inspect(const Arguments& arguments) {
  InspectFlags flags;
  ArgParser parser("inspect", "FILE [OPTIONS]",
                   "Shows what a GGUF file holds. The weights are not read.");
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
    return kExitOk;
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

  const AbortOnInterrupt abort;
  const auto file = GgufFile::open(flags.model);
  if (flags.chat_template) {
    const std::string text = chat_template_of(*file);
    if (text.empty()) {
      throw Error(ErrorCode::kUnsupported, printable(flags.model, 400) + " has no chat template");
    }
    write_stdout(replace_invalid_utf8(text) + "\n");
    return kExitOk;
  }
  const ModelInfo info = describe_model(*file);
  std::optional<ModelInfo> draft;
  std::optional<PairReport> pair;
  if (!flags.draft.empty()) {
    const auto draft_file = GgufFile::open(flags.draft);
    draft = describe_model(*draft_file);
    pair = check_pair(*file, *draft_file);
  }
  const FileTokenizer tokenizer(*file);
  const ModelInfo* draft_info = draft ? &*draft : nullptr;
  const PairReport* pair_report = pair ? &*pair : nullptr;
  const std::vector<std::string> placement = placement_of(flags);
  if (flags.json) {
    print_json(*file, info, draft_info, tokenizer, pair_report, flags, placement);
    return kExitOk;
  }
  std::string out =
      summary(*file, info, draft_info, tokenizer, pair_report, flags.n_ctx, placement);
  if (flags.keys) {
    out += "\n";
    for (const GgufEntry& entry : file->entries()) {
      out += padded(printable(entry.key), 42) + padded(entry.value.type_name(), 10) +
             entry.value.to_display_string() + "\n";
    }
  }
  if (flags.tensors) {
    out += "\n";
    for (const TensorInfo& tensor : file->tensors()) {
      out += padded(printable(tensor.name), 32) + padded(dtype_traits(tensor.dtype).name, 6) +
             padded(shape_text(tensor), 20) + human_bytes(static_cast<double>(tensor.n_bytes)) +
             "\n";
    }
  }
  file->check_whole();
  write_stdout(out);
  return kExitOk;
}

}  // namespace specdec::cli
