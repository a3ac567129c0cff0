// A GGUF model ready to run: file, configuration, weights and tokenizer, loaded once and shared by
// every session that uses it.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "backend/kv_layout.h"
#include "engine/model_info.h"

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
