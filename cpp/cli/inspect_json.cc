#include <cstdint>
#include <string>

#include "cli/inspect_report.h"
#include "cli/json.h"

namespace specdec::cli {
namespace {

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

void write_memory(JsonWriter& json, const Memory& memory, int n_ctx) {
  json.begin_object()
      .member("weights_bytes", memory.weights)
      .member("cache_bytes_per_token", memory.cache_per_token)
      .member("n_ctx", n_ctx)
      .member("total_bytes", total_bytes(memory, n_ctx))
      .end_object();
}

void write_pair(JsonWriter& json, const PairReport& pair) {
  json.key("pair").begin_object();
  json.member("compatible", pair.compatible)
      .member("identical", pair.identical)
      .member("reason", pair.reason)
      .member("n_target_tokens", pair.n_target_tokens)
      .member("n_draft_tokens", pair.n_draft_tokens)
      .member("n_shared_tokens", pair.n_shared_tokens)
      .member("first_difference", pair.first_difference)
      .member("cost_ratio", pair.cost_ratio)
      .member("warnings", pair.warnings)
      .end_object();
}

}  // namespace

std::string inspect_json(const Inspected& seen, int n_ctx, bool with_tensors) {
  const GgufFile& file = *seen.file;
  const ModelInfo& info = seen.info;
  const ModelInfo* draft = seen.draft ? &*seen.draft : nullptr;
  const PairReport* pair = seen.pair ? &*seen.pair : nullptr;
  JsonWriter json;
  json.begin_object();
  json.member("path", info.path)
      .member("gguf_version", static_cast<std::int64_t>(file.version()))
      .member("architecture", info.architecture)
      .member("name", info.name)
      .member("n_params", info.n_params)
      .member("size_bytes", info.size_bytes)
      .member("n_parts", info.n_parts)
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
      .member("ffn_size", info.ffn_size);
  if (info.n_experts > 0)
    json.member("n_experts", info.n_experts).member("n_experts_used", info.n_experts_used);
  json.member("n_heads", info.n_heads)
      .member("n_kv_heads", info.n_kv_heads)
      .member("head_dim", info.head_dim)
      .member("tied_head", info.tied_head)
      .member("tokenizer", info.tokenizer);
  write_special_tokens(json, seen.tokenizer.tokenizer.get());
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
  if (with_tensors) {
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
  write_memory(json, memory_of(info), n_ctx);
  if (draft != nullptr) {
    json.key("draft_memory");
    write_memory(json, memory_of(*draft), n_ctx);
  }
  if (pair != nullptr) write_pair(json, *pair);
  if (!seen.placement.empty()) json.member("placement", seen.placement);
  json.member("warnings", seen.tokenizer.warnings);
  json.end_object();
  return json.text() + "\n";
}

}  // namespace specdec::cli
