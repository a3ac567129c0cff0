// Loading: from a checked tensor directory to matrices in the backend's layout.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "model/device_sizes.h"
#include "model/weights.h"
#include "quant/codec.h"
#include "quant/requantize.h"

namespace specdec {

namespace {

class Loader {
 public:
  Loader(const GgufFile& file, const ModelConfig& config, Backend& backend,
         const LoadOptions& options, ModelMemory& memory, std::vector<std::string>& warnings,
         std::vector<std::vector<std::byte>>& requantized)
      : file_(file),
        host_(backend),
        backend_(&backend),
        options_(options),
        memory_(memory),
        warnings_(warnings),
        requantized_(requantized) {
    const bool tied = file.find_tensor("output.weight") == nullptr;
    for (const TensorInfo& tensor : file.tensors()) {
      if (is_of_unused_block(tensor.name, config)) continue;
      if (tied || tensor.name != "token_embd.weight") progress_.n_bytes_total += tensor.n_bytes;
    }
  }

  // What follows goes there; null: to the CPU.
  void use(DeviceBackend* device) {
    device_ = device;
    backend_ = device != nullptr ? static_cast<Backend*>(device) : &host_;
  }

  // n_rows rows of a matrix; more of it follows when these are not `last`. exact: never rewritten.
  std::unique_ptr<WeightMatrix> matrix(const std::string& name, std::uint64_t n_rows,
                                       std::uint64_t first_row = 0, bool last = true,
                                       bool exact = false) {
    const TensorInfo& tensor = *file_.find_tensor(name);
    if (first_row == 0) check(tensor);
    const std::uint64_t n_in = tensor.shape[0];
    const std::uint64_t n_bytes = row_bytes(tensor.dtype, n_in) * n_rows;
    const std::uint64_t first_byte = row_bytes(tensor.dtype, n_in) * first_row;
    file_.will_need(tensor, first_byte, n_bytes);
    const auto out = static_cast<std::int64_t>(n_rows);
    const auto in = static_cast<std::int64_t>(n_in);
    const std::span<const std::byte> data = file_.tensor_data(tensor).subspan(first_byte, n_bytes);
    if (!exact && requantizes(tensor)) {
      auto rewritten = requantized(tensor.dtype, out, in, data);
      if (last) finish(tensor);
      return rewritten;
    }
    auto matrix = backend_->load_matrix(tensor.dtype, out, in, data);
    count(matrix->n_bytes());
    if (matrix->is_view()) {
      // The embedding is counted once, also when it is the head.
      if (name != "token_embd.weight") memory_.mapped_bytes += n_bytes;
      if (last) done(tensor);
    } else if (last) {
      finish(tensor);
    }
    return matrix;
  }

  // The embedding where the device looks rows up: as it is in the file. Not a part of the progress.
  std::unique_ptr<WeightMatrix> embedding(const TensorInfo& tensor, std::int64_t n_rows) {
    const auto n_in = static_cast<std::int64_t>(tensor.shape[0]);
    const std::size_t n_bytes = static_cast<std::size_t>(row_bytes(tensor.dtype, tensor.shape[0])) *
                                static_cast<std::size_t>(n_rows);
    auto matrix =
        backend_->load_matrix(tensor.dtype, n_rows, n_in, file_.tensor_data(tensor).first(n_bytes));
    count(matrix->n_bytes());
    file_.release(tensor, 0, tensor.n_bytes);
    return matrix;
  }

  [[nodiscard]] bool requantizes(const TensorInfo& tensor) const {
    return options_.requantize &&
           requantize_pays(tensor.dtype, static_cast<std::int64_t>(tensor.shape[0]),
                           *options_.requantize);
  }

  std::unique_ptr<WeightMatrix> requantized(DType from, std::int64_t n_rows, std::int64_t n_in,
                                            std::span<const std::byte> data) {
    const DType to = *options_.requantize;
    std::vector<std::byte> rows = requantize(from, data, n_rows, n_in, to, host_.info().n_threads);
    auto matrix = backend_->load_matrix(to, n_rows, n_in, rows);
    count(matrix->n_bytes());
    memory_.requantize_saved_bytes += data.size() - rows.size();
    if (matrix->is_view()) {
      memory_.weights_bytes += rows.size();
      requantized_.push_back(std::move(rows));  // moving keeps the place
    }
    return matrix;
  }

  // The matrices of a stack, one by one: those for which there is no room stay in the file.
  void experts(const Slot& slot, PartWeights& to) {
    const TensorInfo& tensor = *file_.find_tensor(slot.name);
    check(tensor);
    if (device_ != nullptr) {
      to.add_expert(slot.part, stack(tensor));
      return finish(tensor);
    }
    const auto n_in = static_cast<std::int64_t>(slot.shape[0]);
    const auto n_out = static_cast<std::int64_t>(slot.shape[1]);
    const std::size_t n_bytes =
        static_cast<std::size_t>(row_bytes(tensor.dtype, slot.shape[0]) * slot.shape[1]);
    const std::span<const std::byte> data = file_.tensor_data(tensor);
    for (std::size_t e = 0; e < slot.shape[2]; ++e) {
      const std::span<const std::byte> expert = data.subspan(e * n_bytes, n_bytes);
      const bool mapped = expert_bytes_ + n_bytes > options_.max_expert_bytes;
      if (!mapped) file_.will_need(tensor, e * n_bytes, n_bytes);
      std::unique_ptr<WeightMatrix> matrix;
      const bool rewritten = requantizes(tensor) && !mapped;
      if (rewritten) {
        matrix = requantized(tensor.dtype, n_out, n_in, expert);
      } else {
        matrix = mapped ? backend_->map_matrix(tensor.dtype, n_out, n_in, expert)
                        : backend_->load_matrix(tensor.dtype, n_out, n_in, expert);
        count(matrix->n_bytes());
      }
      if (matrix->is_view() && !rewritten) {
        memory_.mapped_bytes += n_bytes;
        memory_.mapped_expert_bytes += n_bytes;
      } else {
        expert_bytes_ += matrix->n_bytes();
        file_.release(tensor, e * n_bytes, n_bytes);
      }
      to.add_expert(slot.part, std::move(matrix));
      if (e % 16 == 15) report();
    }
    done(tensor);
  }

  // The matrices of a stack on the device, as one.
  std::unique_ptr<WeightMatrix> stack(const TensorInfo& tensor) {
    const auto n_in = static_cast<std::int64_t>(tensor.shape[0]);
    const auto n_out = static_cast<std::int64_t>(tensor.shape[1]);
    const auto n = static_cast<int>(tensor.shape[2]);
    std::span<const std::byte> data = file_.tensor_data(tensor);
    file_.will_need(tensor, 0, tensor.n_bytes);
    DType dtype = tensor.dtype;
    std::vector<std::byte> rows;
    if (requantizes(tensor)) {
      rows = requantize(dtype, data, n * n_out, n_in, *options_.requantize, host_.info().n_threads);
      memory_.requantize_saved_bytes += data.size() - rows.size();
      dtype = *options_.requantize;
      data = rows;
    }
    auto matrix = device_->load_stack(dtype, n_out, n_in, n, data);
    count(matrix->n_bytes());
    return matrix;
  }

  // What the file holds of a slot; n_rows rows of a matrix, a vector times `factor`.
  void slot(const Slot& slot, std::uint64_t n_rows, PartWeights& to, float factor = 1) {
    if (file_.find_tensor(slot.name) == nullptr) return;
    if (slot.kind == SlotKind::kVector) {
      to.set(slot.part, vector(slot.name, factor));
    } else if (slot.kind == SlotKind::kExperts) {
      experts(slot, to);
    } else {
      // A router's near ties must not be decided by rounding.
      const bool exact = slot.part == Part::kRouter;
      const bool last = slot.end_row() == slot.shape[1];
      to.set(slot.part, matrix(slot.name, n_rows, slot.first_row, last, exact));
    }
  }

  // Values of a tensor as floats.
  FloatWeights vector(const std::string& name, float factor) {
    const TensorInfo* tensor = file_.find_tensor(name);
    check(*tensor);
    std::vector<float> values(tensor->n_elements);
    codec(tensor->dtype)
        .dequantize(file_.tensor_data(*tensor).data(), values.data(),
                    static_cast<std::int64_t>(values.size()));
    if (factor != 1) {
      for (float& value : values) value *= factor;
    }
    for (const float value : values) {
      if (std::isfinite(value)) continue;
      warnings_.push_back("non_finite: tensor '" + printable(name) + "' holds NaN or infinity");
      break;
    }
    const std::size_t n_bytes = values.size() * sizeof(float);
    count(n_bytes);
    finish(*tensor);
    FloatWeights out;
    if (device_ != nullptr) {
      out.device = device_->allocate(n_bytes, "weights");
      device_->upload(out.device.data(), values.data(), n_bytes);
    } else {
      out.host = std::move(values);
    }
    return out;
  }

  void count(std::size_t n_bytes) {
    (device_ != nullptr ? memory_.device_bytes : memory_.weights_bytes) += n_bytes;
  }

  void check(const TensorInfo& tensor) const {
    if (options_.check_tensors) check_tensor_values(file_, tensor);
  }

  // The bytes of `tensor` are not needed any more.
  void finish(const TensorInfo& tensor) {
    file_.release(tensor, 0, tensor.n_bytes);
    done(tensor);
  }

  void done(const TensorInfo& tensor) {
    file_.check_whole();
    progress_.n_bytes_done += tensor.n_bytes;
    report();
  }

  void report() const {
    if (options_.on_progress && !options_.on_progress(progress_)) {
      throw Error(ErrorCode::kCancelled, file_.path() + ": loading was cancelled");
    }
  }

 private:
  const GgufFile& file_;
  Backend& host_;
  Backend* backend_;                 // where matrices go
  DeviceBackend* device_ = nullptr;  // backend_, when it is one
  const LoadOptions& options_;
  ModelMemory& memory_;
  std::vector<std::string>& warnings_;
  std::vector<std::vector<std::byte>>& requantized_;
  LoadProgress progress_;
  std::size_t expert_bytes_ = 0;  // in memory
};

}  // namespace

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
  config_ = read_model_config(*file_, &warnings_);
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
  Loader loader(*file_, config_, *backend_, options, w.memory, warnings_, w.requantized);
  loader.report();

  w.embedding = file_->find_tensor("token_embd.weight");
  w.embedding_data = file_->tensor_data(*w.embedding);
  w.memory.mapped_bytes = static_cast<std::size_t>(w.embedding->n_bytes);
  loader.use(device);
  // The largest matrix first: while one is packed both copies of it are in memory.
  const auto n_tokens = static_cast<std::uint64_t>(config_.n_tokens);
  if (config_.tied_head) {
    w.model.set(Part::kHead, loader.matrix(w.embedding->name, n_tokens));
  } else {
    loader.check(*w.embedding);
  }
  for (const Slot& slot : config_.slots) {
    const bool elsewhere = slot.part == Part::kEmbedding || is_configuration(slot.part);
    const float factor = slot.part == Part::kOutputNorm ? config_.logit_scale : 1.0F;
    if (slot.layer < 0 && !elsewhere) loader.slot(slot, n_tokens, w.model, factor);
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
  return config.n_recurrent_layers() > 0 ? "recurrent layers run on the CPU only" : "";
}

const ModelConfig& Model::config() const noexcept { return config_; }
const std::shared_ptr<const GgufFile>& Model::file() const noexcept { return file_; }
const std::shared_ptr<Backend>& Model::backend() const noexcept { return backend_; }
const std::vector<std::string>& Model::warnings() const noexcept { return warnings_; }
ModelMemory Model::memory() const noexcept { return weights_->memory; }

}  // namespace specdec
