#include <string>

#include "base/error.h"
#include "cli/inspect_report.h"
#include "cli/terminal.h"
#include "tokenizer/utf8.h"

namespace specdec::cli {
namespace {

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

std::string memory_text(const Memory& memory, int n_ctx) {
  return human_bytes(static_cast<double>(memory.weights)) + " weights + " +
         human_bytes(cache_bytes(memory, n_ctx)) + " F16 cache for " + std::to_string(n_ctx) +
         " tokens";
}

std::string padded(std::string text, std::size_t width) {
  text.resize(std::max(text.size() + 2, width), ' ');
  return text;
}

}  // namespace

FileTokenizer::FileTokenizer(const GgufFile& file) : warnings(file.warnings()) {
  try {
    tokenizer = Tokenizer::from_gguf(file);
    for (const std::string& warning : tokenizer->warnings()) warnings.push_back(warning);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kModelFormat && error.code() != ErrorCode::kUnsupported) throw;
    warnings.push_back(std::string("tokenizer: ") + error.what());
  }
}

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

std::string chat_template_of(const GgufFile& file) {
  const GgufValue* value = file.find("tokenizer.chat_template");
  if (value == nullptr || value->type() != GgufType::kString) return {};
  return std::string(value->as_string());
}

std::string inspect_summary(const Inspected& seen, int n_ctx) {
  const GgufFile& file = *seen.file;
  const ModelInfo& info = seen.info;
  const ModelInfo* draft = seen.draft ? &*seen.draft : nullptr;
  const PairReport* pair = seen.pair ? &*seen.pair : nullptr;
  std::string out;
  const auto line = [&out](const char* label, const std::string& text) {
    if (!text.empty()) out += padded(label, 16) + text + "\n";
  };
  const auto count = [](std::int64_t n) { return n == 0 ? std::string() : std::to_string(n); };
  line("file", printable(info.path, 400));
  line("name", info.name);
  line("architecture", info.architecture);
  line("parameters", group_digits(info.n_params));
  std::string size = human_bytes(static_cast<double>(info.size_bytes));
  if (info.n_parts > 1) size += " in " + std::to_string(info.n_parts) + " files";
  line("size", size);
  std::string types = info.quantisation + "  (";
  for (const auto& [name, n] : info.tensor_types) {
    types += std::to_string(n) + " " + name + (name == info.tensor_types.back().first ? ")" : ", ");
  }
  if (!info.tensor_types.empty()) line("weights", types);
  line("layers", count(info.n_layers));
  line("hidden size", count(info.hidden_size));
  line("feed-forward", count(info.ffn_size));
  if (info.n_experts > 0)
    line("experts", count(info.n_experts) + ", " + count(info.n_experts_used) + " for each token");
  if (info.n_heads > 0) {
    line("heads", count(info.n_heads) + " of " + count(info.head_dim) + ", " +
                      count(info.n_kv_heads) + " for keys and values");
  }
  line("context", count(info.context_length));
  line("vocabulary",
       count(info.vocab_size) + (info.tied_head ? " (head shared with the embedding)" : ""));
  line("tokenizer", info.tokenizer);
  if (seen.tokenizer.tokenizer != nullptr)
    line("special tokens", special_tokens_text(*seen.tokenizer.tokenizer));
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
  for (const std::string& text : seen.placement) line("on a GPU", text);
  for (const std::string& warning : seen.tokenizer.warnings) line("warning", warning);
  return out;
}

std::string inspect_keys(const GgufFile& file) {
  std::string out = "\n";
  for (const GgufEntry& entry : file.entries()) {
    out += padded(printable(entry.key), 42) + padded(entry.value.type_name(), 10) +
           entry.value.to_display_string() + "\n";
  }
  return out;
}

std::string inspect_tensors(const GgufFile& file) {
  std::string out = "\n";
  for (const TensorInfo& tensor : file.tensors()) {
    out += padded(printable(tensor.name), 32) + padded(dtype_traits(tensor.dtype).name, 6) +
           padded(shape_text(tensor), 20) + human_bytes(static_cast<double>(tensor.n_bytes)) + "\n";
  }
  return out;
}

}  // namespace specdec::cli
