// Loading: which tensors of a checked directory go where.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <system_error>

#include "base/control_groups.h"
#include "base/system.h"
#include "model/device_sizes.h"
#include "model/loader.h"
#include "model/weights.h"

namespace specdec {

Model::Model(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend)
    : file_(std::move(file)), backend_(std::move(backend)) {
  static std::atomic<std::uint64_t> next_id{1};
  id_ = next_id++;
}

Model::~Model() {
  if (device_ == nullptr) return;
  device_->forget(id_);
  weights_.reset();
  if (reservation_ >= 0) device_->release(reservation_);
}

std::shared_ptr<const Model> Model::load(const std::string& path, std::shared_ptr<Backend> backend,
                                         const LoadOptions& options) {
  return load(GgufFile::open(path), std::move(backend), options);
}

std::shared_ptr<const Model> Model::load(std::shared_ptr<const GgufFile> file,
                                         std::shared_ptr<Backend> backend,
                                         const LoadOptions& options) {
  if (file == nullptr || backend == nullptr)
    throw_invalid("Model::load needs a file and a backend");
  std::shared_ptr<Model> model(new Model(std::move(file), std::move(backend)));
  try {
    model->load_weights(options);
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kResource, model->file_->path() + ": not enough memory for the weights");
  }
  return model;
}

void Model::reserve_device(const LoadOptions& options) {
  const DeviceSizes sizes = device_sizes(*file_, config_, options.requantize, options.device.get());
  const KvLayout layout{.type = options.device_kv_type,
                        .n_kv_heads = config_.n_kv_heads,
                        .head_dim = config_.head_dim};
  WorkShape shape = sizes.work;
  shape.n_ctx = options.n_device_ctx;
  reservation_ = device_->reserve(
      sizes.weights(n_device_layers(), options.device_embedding && first_device_layer_ == 0) +
          device_cache_bytes(layout, options.n_device_ctx) *
              static_cast<std::size_t>(n_device_layers()),
      shape);
}

void Model::load_weights(const LoadOptions& options) {
  warnings_ = file_->warnings();
  requantize_ = options.requantize;
  config_ = read_model_config(*file_, &warnings_, options.part);
  for (const RopeConfig& rope : config_.ropes) {
    ropes_.push_back(rope_frequencies(rope));
    if (!config_.ropes[0].long_divisors.empty())
      long_ropes_.push_back(rope_frequencies(rope, true));
  }
  weights_ = std::make_unique<ModelWeights>();
  ModelWeights& w = *weights_;
  expert_share_ = read_expert_share(*file_, config_);
  first_device_layer_ = config_.n_layers;
  const std::string reason(no_device_reason(config_));
  if (!reason.empty() && options.device != nullptr && options.n_device_layers > 0) {
    throw Error(ErrorCode::kUnsupported,
                file_->path() + ": " + reason + "; load it with device 'cpu' and no GPU layers");
  }
  if (options.device != nullptr && options.n_device_layers > 0) {
    device_ = options.device;
    first_device_layer_ -= std::min(options.n_device_layers, config_.n_layers);
    reserve_device(options);
  }
  DeviceBackend* const device = device_.get();  // of the head, and of layers
  const std::uint64_t identity = packed_identity(options);
  open_packed(options, identity);
  Loader loader(*file_, config_, *backend_, options, w.memory, warnings_, w.requantized,
                w.packed.get());
  loader.report();

  // Null: a head that uses its target's.
  for (const Slot& slot : config_.slots)
    if (slot.part == Part::kEmbedding) w.embedding = file_->find_tensor(slot.name);
  if (w.embedding != nullptr) {
    w.embedding_data = file_->tensor_data(*w.embedding);
    w.memory.mapped_bytes = static_cast<std::size_t>(w.embedding->n_bytes);
  }
  loader.use(device);
  // The largest matrix first: while one is packed both copies of it are in memory.
  const auto n_tokens = static_cast<std::uint64_t>(config_.n_tokens);
  const auto n_head_tokens = static_cast<std::uint64_t>(config_.n_head_tokens);
  if (config_.tied_head) {
    w.model.set(Part::kHead, loader.matrix(w.embedding->name, n_tokens));
  } else if (w.embedding != nullptr) {
    loader.check(*w.embedding);
  }
  for (const Slot& slot : config_.slots) {
    const bool elsewhere = slot.part == Part::kEmbedding || is_configuration(slot.part);
    const float factor = slot.part == Part::kOutputNorm ? config_.logit_scale : 1.0F;
    const std::uint64_t n_rows = slot.part == Part::kFuse   ? slot.end_row()
                                 : slot.part == Part::kHead ? n_head_tokens
                                                            : n_tokens;
    if (slot.layer < 0 && !elsewhere) loader.slot(slot, n_rows, w.model, factor);
  }
  if (device != nullptr && first_device_layer_ == 0 && options.device_embedding) {
    if (!embedding_is_head(*w.embedding, config_, options.requantize))
      w.own_device_embedding = loader.embedding(*w.embedding, config_.n_tokens);
    w.device_embedding = w.own_device_embedding != nullptr ? w.own_device_embedding.get()
                                                           : w.model.matrix(Part::kHead);
    w.memory.mapped_bytes = 0;
  }
  w.layers.resize(static_cast<std::size_t>(config_.n_layers));
  for (const Slot& slot : config_.slots) {
    if (slot.layer < 0) continue;
    loader.use(slot.layer < first_device_layer_ ? nullptr : device);
    const std::uint64_t n_rows =
        slot.kind == SlotKind::kMatrix ? slot.end_row() - slot.first_row : 1;
    loader.slot(slot, n_rows, w.layers[static_cast<std::size_t>(slot.layer)]);
  }
  if (!loader.parts().empty() && identity != 0)
    keep_packed(options, identity, loader.parts(), [&] {
      loader.report();
      if (w.packed != nullptr) w.packed->check_whole();  // parts may be read from it
    });
}

std::uint64_t Model::packed_identity(const LoadOptions& options) const {
  // Hashing the metadata takes milliseconds of a start: only where there is something to compare.
  std::error_code unknown;
  const bool wanted = options.keep_packed || std::filesystem::exists(options.packed_path, unknown);
  if (options.packed_path.empty() || !wanted) return 0;
  const std::string variant =
      options.requantize ? dtype_traits(*options.requantize).name : std::string();
  return specdec::packed_identity(*file_, backend_->packed_layout(), variant);
}

void Model::open_packed(const LoadOptions& options, std::uint64_t identity) {
  if (identity == 0) return;
  weights_->packed = PackedFile::open(options.packed_path, identity);
  // Where it would push out other things, or itself, it is read as it is needed. One core is the
  // tokenizer's, which is made meanwhile.
  if (weights_->packed == nullptr) return;
  const auto left = read_control_groups().free_bytes;
  const std::uint64_t free = std::min(free_memory_bytes(), left.value_or(UINT64_MAX));
  if (weights_->packed->size() < free / 2)
    weights_->packed->bring_in(std::max(1, backend_->info().n_threads - 1));
}

// What cannot be kept is no reason not to run.
void Model::keep_packed(const LoadOptions& options, std::uint64_t identity,
                        std::span<const PackedPart> parts, const std::function<void()>& poll) {
  std::size_t n_bytes = 0;
  for (const PackedPart& part : parts) n_bytes += part.bytes.size();
  if (n_bytes == weights_->memory.kept_bytes) return;  // all of it came from there
  try {
    std::error_code unknown;  // without a source the file is never tidied away
    const std::filesystem::path source = std::filesystem::canonical(file_->path(), unknown);
    PackedFile::write(options.packed_path, identity, unknown ? std::string() : source.native(),
                      parts, poll);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kCancelled) throw;
    warnings_.push_back(std::string("not_kept: packed weights are made again at the next start: ") +
                        error.what());
  }
}

void Model::check_whole() const {
  file_->check_whole();
  if (weights_->packed != nullptr) weights_->packed->check_whole();
}

KvShape Model::kv_shape(KvType type) const {
  KvShape shape{
      .n_layers = config_.n_layers - config_.n_recurrent_layers(),
      .layout = {.type = type, .n_kv_heads = config_.n_kv_heads, .head_dim = config_.head_dim},
      .n_device_layers = n_device_layers(),
      .n_recurrent_layers = config_.n_recurrent_layers(),
      .recurrent = config_.recurrent};
  for (const LayerSpec& layer : config_.layers) {
    if (layer.recurrent) continue;
    shape.windowed.push_back(layer.window > 0);
    shape.window = std::max(shape.window, layer.window);
  }
  return shape;
}

std::size_t Model::kv_bytes_per_token(KvType type) const {
  const KvShape shape = kv_shape(type);
  return shape.layout.layer_bytes() * static_cast<std::size_t>(shape.n_layers) / kKvChunk;
}

std::size_t Model::state_bytes() const {
  return RecurrentCache::full_bytes(config_.recurrent, config_.n_recurrent_layers());
}

bool Model::can_run_steps() const noexcept { return weights_->device_embedding != nullptr; }

std::string_view no_device_reason(const ModelConfig& config) {
  if (config.draft_head) return "heads that draft run on the CPU only";
  for (const Slot& slot : config.slots) {
    if (slot.part == Part::kAttentionSinks) return "attention with sinks runs on the CPU only";
    if (slot.part == Part::kSharedDown) return "shared experts run on the CPU only";
    if (slot.part == Part::kDownExpertsBias) return "experts with biases run on the CPU only";
  }
  if (config.n_recurrent_layers() > 0) return "recurrent layers run on the CPU only";
  for (const LayerSpec& layer : config.layers)
    if (layer.gates_attention) return "attention with gates runs on the CPU only";
  return "";
}

const ModelConfig& Model::config() const noexcept { return config_; }
const std::shared_ptr<const GgufFile>& Model::file() const noexcept { return file_; }
const std::shared_ptr<Backend>& Model::backend() const noexcept { return backend_; }
const std::vector<std::string>& Model::warnings() const noexcept { return warnings_; }
ModelMemory Model::memory() const noexcept { return weights_->memory; }

}  // namespace specdec
