// A loaded transformer: configuration and weights. Immutable, so any number of threads and sessions
// share one; a Runner computes with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "backend/device_backend.h"
#include "gguf/reader.h"
#include "kv/kv_cache.h"
#include "model/config.h"

namespace specdec {

struct ModelWeights;
class PartWeights;
struct PackedPart;

struct LoadProgress {
  std::uint64_t n_bytes_done = 0;
  std::uint64_t n_bytes_total = 0;
};

struct LoadOptions {
  FilePart part = FilePart::kModel;
  // The last n_device_layers layers and, if there are any, the output head go to `device`, which
  // also reserves their caches of n_device_ctx positions of kv_type. 0: all on the backend given.
  std::shared_ptr<DeviceBackend> device = {};
  int n_device_layers = 0;
  int n_device_ctx = 0;
  // With all layers on the device the embedding too: passes begin there, and steps can run there.
  bool device_embedding = true;
  KvType device_kv_type = KvType::kF16;
  // Rewrites matrices that become smaller by it, the head too, in this format.
  std::optional<DType> requantize = {};
  // Experts beyond so many bytes are not copied but read from the mapped file, with the same bits.
  std::size_t max_expert_bytes = std::numeric_limits<std::size_t>::max();
  // Where packed weights are kept, by the backend's layout and what else they depend on; used if
  // they are there. Empty: nowhere.
  std::string packed_path = {};
  bool keep_packed = false;    // write that file where it cannot be used as it is
  bool check_tensors = false;  // read every tensor once and refuse NaN and infinity
  // Called after every tensor; return false to stop with Error(kCancelled).
  std::function<bool(const LoadProgress&)> on_progress = {};
};

struct ModelMemory {
  std::size_t requantize_saved_bytes = 0;  // of the file's matrices
  std::size_t weights_bytes = 0;           // held by the backend and by float vectors
  // Read from the mapped file, shared with its page cache: the embedding, and matrices that are
  // views.
  std::size_t mapped_bytes = 0;
  std::size_t mapped_expert_bytes = 0;  // of that, experts
  std::size_t device_bytes = 0;         // weights on the device
  std::size_t kept_bytes = 0;           // of weights_bytes, mapped from the file of packed weights
};

// Why no device can run such a model; empty: one can.
[[nodiscard]] std::string_view no_device_reason(const ModelConfig& config);

// Of the weights that a pass of one row reads, what experts are; from the directory of tensors.
[[nodiscard]] double read_expert_share(const GgufFile& file, const ModelConfig& config);

class Model {
 public:
  // Throws Error; see read_model_config for the checks. The file stays mapped while the model
  // lives.
  [[nodiscard]] static std::shared_ptr<const Model> load(const std::string& path,
                                                         std::shared_ptr<Backend> backend,
                                                         const LoadOptions& options = {});
  [[nodiscard]] static std::shared_ptr<const Model> load(std::shared_ptr<const GgufFile> file,
                                                         std::shared_ptr<Backend> backend,
                                                         const LoadOptions& options = {});
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  [[nodiscard]] const ModelConfig& config() const noexcept;
  [[nodiscard]] const std::shared_ptr<const GgufFile>& file() const noexcept;
  // Of the layers on the CPU.
  [[nodiscard]] const std::shared_ptr<Backend>& backend() const noexcept;
  // Of the others; null: there are none.
  [[nodiscard]] const std::shared_ptr<DeviceBackend>& device() const noexcept { return device_; }
  [[nodiscard]] int n_device_layers() const noexcept {
    return config_.n_layers - first_device_layer_;
  }
  [[nodiscard]] const std::vector<std::string>& warnings()
      const noexcept;  // of reader and validation

  // What a cache for this model looks like, and what one position costs in it.
  [[nodiscard]] KvShape kv_shape(KvType type) const;
  [[nodiscard]] std::size_t kv_bytes_per_token(KvType type) const;
  // And what it costs however long it is: the most that states of recurrent layers take.
  [[nodiscard]] std::size_t state_bytes() const;
  [[nodiscard]] ModelMemory memory() const noexcept;
  // Of the weights that a pass of one row reads, experts.
  [[nodiscard]] double expert_share() const noexcept { return expert_share_; }

  // Whether steps can follow each other on the device: all layers, the head and the embedding are
  // there.
  [[nodiscard]] bool can_run_steps() const noexcept;

  // After use of its weights: throws as MappedFile::check_whole() if one of its files was cut off.
  void check_whole() const;

  // For those who compute with it.
  [[nodiscard]] const ModelWeights& weights() const noexcept { return *weights_; }
  // What heads that draft for this model take of it besides its embedding: the output norm and,
  // with_output, the output head, where the CPU reads them. Those that are on a device are copied
  // when they are first asked for. Throws Error(kResource).
  [[nodiscard]] const PartWeights& lend(bool with_output) const;
  // Of a sequence whose cache has room for n_ctx positions.
  [[nodiscard]] const std::vector<RopeFrequencies>& ropes(bool long_context) const noexcept {
    return long_context ? long_ropes_ : ropes_;
  }
  [[nodiscard]] bool is_long(int n_ctx) const noexcept {
    return !long_ropes_.empty() && n_ctx > config_.ropes[0].original_context;
  }
  [[nodiscard]] int first_device_layer() const noexcept { return first_device_layer_; }
  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }  // unique in the process

 private:
  Model(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend);

  void load_weights(const LoadOptions& options);
  void reserve_device(const LoadOptions& options);
  [[nodiscard]] std::uint64_t packed_identity(const LoadOptions& options) const;
  void open_packed(const LoadOptions& options, std::uint64_t identity);
  void keep_packed(const LoadOptions& options, std::uint64_t identity,
                   std::span<const PackedPart> parts, const std::function<void()>& poll);

  std::shared_ptr<const GgufFile> file_;
  std::shared_ptr<Backend> backend_;
  std::shared_ptr<DeviceBackend> device_;
  int first_device_layer_ = 0;  // n_layers: none
  int reservation_ = -1;        // on the device
  ModelConfig config_;
  std::vector<RopeFrequencies> ropes_;       // of config_.ropes
  std::vector<RopeFrequencies> long_ropes_;  // likewise with long_divisors; empty: there are none
  std::vector<std::string> warnings_;
  std::unique_ptr<ModelWeights> weights_;
  std::optional<DType> requantize_;
  mutable std::mutex lend_mutex_;
  mutable std::unique_ptr<ModelWeights> lent_;  // null: nobody has asked
  std::uint64_t id_ = 0;
  double expert_share_ = 0;
};

}  // namespace specdec
