// A GGUF model ready to run: file, configuration, weights and tokenizer, loaded once and shared by
// every session that uses it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "backend/kv_layout.h"
#include "base/token.h"
#include "engine/model_info.h"
#include "engine/placement.h"
#include "tokenizer/tokenizer.h"

namespace specdec {

class Backend;
class DeviceBackend;
class GgufFile;
class Model;

// Part of a prompt. Text that a user typed is kept apart from template markers (parse_special), so
// that it cannot forge special tokens.
using PromptPiece = ChatPiece;

struct ModelOptions {
  int n_threads = 0;  // 0: one per core this process may use
  // "cpu"; "cuda": as n_gpu_layers says, an error without a usable GPU; "auto": the same, but on
  // the CPU where there is no GPU, unless n_gpu_layers asks for one by number. Heads that draft are
  // on the CPU with all three, and refused GPU layers by number.
  std::string device = "auto";
  int n_gpu_layers = -1;          // the last so many layers and the head; -1: as many as fit
  std::uint64_t vram_budget = 0;  // bytes that all models of this process may take; 0: what is free
  // Positions of the context of sessions that do not say; on a GPU their cache is reserved at once.
  // 0: the model's context length, at most kDefaultContext.
  int n_ctx = 0;
  // The GPU to use instead of the first CUDA device.
  std::shared_ptr<DeviceBackend> gpu;
  std::string kv_type =
      "f16";  // elements of the KV cache: "f32", "f16", "q8_0"; a session may differ
  // "auto": weights are repacked for the kernels; "keep": and kept in a file, $SPECDEC_PACKED or
  // ~/.cache/specdec-native/packed, that later loads with "auto" or "keep" map and share; "off":
  // they stay in the mapped file and are packed in every pass, slower, in little memory. All with
  // the same results.
  std::string repack = "auto";
  bool check_tensors = false;  // read all weights and refuse NaN and infinity
  // "q4_0", "q4_1", "q5_0", "q5_1", "q8_0": matrices that become smaller by it are rewritten so,
  // which costs accuracy; "": as they are in the file. For draft models.
  std::string requantize;
  // Called on the loading thread with 0..1. An exception thrown from it ends the load.
  std::function<void(double fraction)> on_progress;
};

// "f32", "f16" or "q8_0"; throws Error(kInvalidArgument) listing them.
[[nodiscard]] KvType parse_kv_type(const std::string& name);
[[nodiscard]] const char* kv_type_name(KvType type);

// What a model of this file would take on a device and how it would be placed, without loading it
// or touching a device: as plan_placement() for the models in order, sizes estimated where `gpu` is
// null. free_bytes 0: what the device has free, the budget without one.
struct PlannedModel {
  std::string name;
  std::string path;
  const ModelOptions* options = nullptr;
};
[[nodiscard]] Placement plan_files(const std::vector<PlannedModel>& models,
                                   std::uint64_t free_bytes, const DeviceBackend* gpu);

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
  // As ModelOptions::n_ctx.
  [[nodiscard]] int n_ctx() const noexcept { return n_ctx_; }
  // Where layers are besides the CPU; null: nowhere.
  [[nodiscard]] const std::shared_ptr<DeviceBackend>& gpu() const noexcept;
  // The tokens of a prompt. add_bos: -1 as the file says, 0, 1. `poll` as in EncodeOptions.
  [[nodiscard]] std::vector<TokenId> encode(const std::vector<PromptPiece>& pieces, int add_bos,
                                            const std::function<void()>& poll = {}) const;
  // The block of the file that predicts further tokens, as a head that drafts for this model.
  // Loaded when it is first asked for. Throws Error: kModelFormat (there is none), and as load().
  [[nodiscard]] std::shared_ptr<const LoadedModel> next_tokens() const;
  // Two models that give different results have different ones, all but certainly: of all bytes of
  // metadata and weights, and of how they were rewritten. Reads them when it is first asked for.
  // `poll` is called many times a second, and may throw.
  [[nodiscard]] std::uint64_t fingerprint(const std::function<void()>& poll = {}) const;
  // Of models with other tokens, or tokens by other ids, all but certainly another one; not 0.
  [[nodiscard]] std::uint64_t vocabulary_fingerprint() const;
  // The file's own template, "" when it has none.
  [[nodiscard]] const std::string& chat_template() const noexcept;

 private:
  LoadedModel();
  void fill_info(const ModelOptions& options, const std::string& cpu_reason,
                 const std::optional<Placement>& placement);

  std::shared_ptr<const GgufFile> file_;
  std::shared_ptr<Backend> backend_;
  std::shared_ptr<const Model> model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  KvType kv_type_ = KvType::kF16;
  int n_ctx_ = 0;
  std::string requantize_;
  ModelOptions options_;  // without what is called
  mutable std::mutex next_tokens_mutex_;
  mutable std::shared_ptr<const LoadedModel> next_tokens_;
  mutable std::atomic<std::uint64_t> fingerprint_{0};  // 0: not known yet
  ModelInfo info_;
};

}  // namespace specdec
