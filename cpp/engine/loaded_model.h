// A GGUF model ready to run: file, configuration, weights and tokenizer, loaded once and shared by
// every session that uses it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/kv_layout.h"

namespace specdec {

class Backend;
class GgufFile;
class Model;
class Tokenizer;

struct ModelOptions {
  int n_threads = 0;           // 0: one per core this process may use
  std::string device = "auto"; // "auto" or "cpu"
  std::string kv_type = "f16"; // elements of the KV cache: "f32", "f16", "q8_0"; a session may differ
  bool check_tensors = false;  // read all weights and refuse NaN and infinity
  // Called on the loading thread with 0..1. An exception thrown from it ends the load.
  std::function<void(double fraction)> on_progress;
};

// What a person wants to know about a model; all of it read from the file but the last three.
struct ModelInfo {
  std::string path;
  std::string architecture;  // "llama"
  std::string name;          // general.name, may be empty
  std::uint64_t n_params = 0;
  std::uint64_t size_bytes = 0;    // of the file
  std::uint64_t weight_bytes = 0;  // of all tensors
  std::vector<std::pair<std::string, int>> tensor_types;  // type name -> tensors, most bytes first
  std::string quantisation;                               // "Q4_K + Q6_K (+ F32)" in that order
  std::int64_t context_length = 0;
  std::int64_t vocab_size = 0;     // tokens with a text
  std::int64_t n_vocab_rows = 0;   // rows of the output head, padding included
  std::int64_t n_layers = 0;
  std::int64_t hidden_size = 0;
  std::int64_t ffn_size = 0;
  std::int64_t n_heads = 0;
  std::int64_t n_kv_heads = 0;
  std::int64_t head_dim = 0;
  bool tied_head = false;          // the output head is the embedding matrix
  std::string tokenizer;           // "llama (SentencePiece)", "gpt2 / qwen2"
  std::string chat_format;         // "chatml", "llama2", ..., or "" when none was recognised
  std::string kv_type;
  std::uint64_t kv_bytes_per_token = 0;
  // Weight bytes a decoding step reads: all matrices once, of the embedding only the head if tied.
  std::uint64_t bytes_per_step = 0;
  std::string device;              // "cpu: avx512_vnni, 2 threads"
  int n_threads = 0;
  double load_ms = 0;
};

// "f32", "f16" or "q8_0"; throws Error(kInvalidArgument) listing them.
[[nodiscard]] KvType parse_kv_type(const std::string& name);
[[nodiscard]] const char* kv_type_name(KvType type);

// Immutable after load; use it from any number of threads.
class LoadedModel {
 public:
  // Throws Error: kIo and kModelFormat (bad file), kUnsupported (architecture, type, device),
  // kResource (memory), kInvalidArgument (options).
  [[nodiscard]] static std::shared_ptr<const LoadedModel> load(const std::string& path,
                                                               const ModelOptions& options = {});
  ~LoadedModel();
  LoadedModel(const LoadedModel&) = delete;
  LoadedModel& operator=(const LoadedModel&) = delete;

  [[nodiscard]] const ModelInfo& info() const noexcept { return info_; }
  [[nodiscard]] const GgufFile& file() const noexcept { return *file_; }
  [[nodiscard]] const Model& model() const noexcept { return *model_; }
  [[nodiscard]] const Tokenizer& tokenizer() const noexcept { return *tokenizer_; }
  [[nodiscard]] KvType kv_type() const noexcept { return kv_type_; }
  // The file's own template, "" when it has none.
  [[nodiscard]] const std::string& chat_template() const noexcept { return chat_template_; }

 private:
  LoadedModel();

  std::shared_ptr<const GgufFile> file_;
  std::shared_ptr<Backend> backend_;
  std::shared_ptr<const Model> model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  KvType kv_type_ = KvType::kF16;
  std::string chat_template_;
  ModelInfo info_;
};

}  // namespace specdec
