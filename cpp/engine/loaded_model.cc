#include "engine/loaded_model.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <limits>

#include "backend/backend.h"
#include "backend/device_backend.h"
#include "base/error.h"
#include "chat_template/formats.h"
#include "engine/cache_folder.h"
#include "engine/memory.h"
#include "engine/session.h"
#include "gguf/reader.h"
#include "model/config.h"
#include "model/device_sizes.h"
#include "model/model.h"
#include "model/slots.h"
#include "quant/requantize.h"
#include "tokenizer/tokenizer.h"

namespace specdec {
namespace {

constexpr KvType kKvTypes[] = {KvType::kF32, KvType::kF16, KvType::kQ8_0};

std::string file_name(const std::string& path) {
  return printable(path.substr(path.find_last_of('/') + 1), 100);
}

// What describe_model() guessed from the file is replaced by what was checked.
void fill_from_config(const Model& model, ModelInfo& info) {
  const ModelConfig& config = model.config();
  info.context_length = config.context_length;
  info.vocab_size = config.n_tokens;
  info.n_vocab_rows = config.vocab_size;
  info.n_layers = config.n_layers;
  info.hidden_size = config.hidden_size;
  info.ffn_size = config.intermediate_size;
  info.n_heads = config.n_heads;
  info.n_kv_heads = config.n_kv_heads;
  info.head_dim = config.head_dim;
  info.tied_head = config.tied_head;
  for (const TensorInfo& tensor : model.file()->tensors()) {
    if (!is_unused(tensor.name, config)) continue;
    const bool is_embedding = tensor.name == "token_embd.weight" && !info.tied_head;
    if (!is_embedding) info.bytes_per_step -= std::min(tensor.n_bytes, info.bytes_per_step);
    if (config.draft_head.next_tokens) info.weight_bytes -= tensor.n_bytes;
  }
}

void check_options(const ModelOptions& options) {
  if (options.device != "auto" && options.device != "cpu" && options.device != "cuda") {
    throw_invalid("device must be 'auto', 'cpu' or 'cuda', got '" + printable(options.device) +
                  "'");
  }
  if (options.device == "cpu" && options.n_gpu_layers > 0) {
    throw_invalid("n_gpu_layers is " + std::to_string(options.n_gpu_layers) +
                  " with device 'cpu'; use device 'auto' or 'cuda', or no GPU layers");
  }
  if (options.n_gpu_layers < -1)
    throw_invalid("n_gpu_layers must be >= 0, or -1 for as many as fit, got " +
                  std::to_string(options.n_gpu_layers));
  if (options.n_threads < 0 || options.n_threads > 256) {
    throw_invalid("n_threads must be 1 to 256, or 0 for one per core, got " +
                  std::to_string(options.n_threads));
  }
  if (options.repack != "auto" && options.repack != "keep" && options.repack != "off") {
    throw_invalid("repack must be 'auto', 'keep' or 'off', got '" + printable(options.repack) +
                  "'");
  }
  if (options.n_ctx < 0) throw_invalid("n_ctx must be >= 0, got " + std::to_string(options.n_ctx));
}

std::optional<DType> requantize_type(const ModelOptions& options) {
  if (options.requantize.empty()) return std::nullopt;
  return parse_requantize_type(options.requantize);
}

int gpu_context(const ModelConfig& config, int n_ctx) {
  return n_ctx > 0 ? n_ctx : std::min(config.context_length, kDefaultContext);
}

DeviceDemand device_demand(const GgufFile& file, const ModelConfig& config,
                           const ModelOptions& options, const DeviceBackend* gpu,
                           const std::string& name) {
  const DeviceSizes sizes = device_sizes(file, config, requantize_type(options), gpu);
  DeviceDemand demand;
  demand.name = name;
  demand.layer_bytes = sizes.layer_bytes;
  demand.head_bytes = sizes.head_bytes;
  demand.embedding_bytes = sizes.embedding_bytes;
  demand.n_ctx = gpu_context(config, options.n_ctx);
  demand.kv_layer_bytes = device_cache_bytes({.type = parse_kv_type(options.kv_type),
                                              .n_kv_heads = config.n_kv_heads,
                                              .head_dim = config.head_dim},
                                             demand.n_ctx);
  WorkShape work = sizes.work;
  work.n_ctx = demand.n_ctx;
  demand.work_bytes = gpu != nullptr ? gpu->work_bytes(work) : estimated_work_bytes(work);
  const bool on_cpu = options.device == "cpu" || !no_device_reason(config).empty();
  demand.n_gpu_layers = on_cpu ? 0 : options.n_gpu_layers;
  return demand;
}

// The GPU a model is to use, or null and why there is none. Throws when one was asked for.
std::shared_ptr<DeviceBackend> open_gpu(const ModelOptions& options, const ModelConfig& config,
                                        std::string& reason) {
  if (options.device == "cpu" || options.n_gpu_layers == 0) return nullptr;
  // Who wants a model on the GPU may say so of its head too, which drafts for it from the CPU.
  const bool is_head = static_cast<bool>(config.draft_head);
  const bool wanted = (options.device == "cuda" && !is_head) || options.n_gpu_layers > 0;
  reason = no_device_reason(config);
  if (!reason.empty()) {
    if (!wanted) return nullptr;
    throw Error(ErrorCode::kUnsupported, reason + "; use device 'cpu' and no GPU layers");
  }
  if (options.gpu != nullptr) return options.gpu;
  const std::vector<DeviceInfo> devices = cuda_devices(&reason);
  if (!devices.empty()) {
    try {
      return make_cuda_backend(devices.front().index);
    } catch (const Error& error) {
      if (wanted) throw;
      reason = error.what();
    }
  }
  if (!wanted) return nullptr;
  const std::string what = options.device == "cuda"
                               ? "device 'cuda'"
                               : std::to_string(options.n_gpu_layers) + " GPU layers";
  if (cuda_build_version().empty()) {
    throw Error(ErrorCode::kUnsupported,
                what + " cannot be had: " + reason +
                    "; install with `pip install . -C cmake.define.SPECDEC_CUDA=ON`, or use device "
                    "'cpu' and no GPU layers");
  }
  throw Error(ErrorCode::kDevice,
              what + " cannot be had: " + reason + "; use device 'cpu' and no GPU layers");
}

// The tokenizer, made beside the weights: of a large vocabulary that takes as long as mapping them.
class PendingTokenizer {
 public:
  explicit PendingTokenizer(const GgufFile& file)
      : file_(file), result_(std::async([&file] { return Tokenizer::from_gguf(file); })) {}
  // Once. Throws what is wrong with it.
  [[nodiscard]] std::shared_ptr<const Tokenizer> get() {
    try {
      return result_.get();
    } catch (...) {
      file_.check_whole();  // if it was cut off meanwhile, that is what to say
      throw;
    }
  }

 private:
  const GgufFile& file_;
  std::future<std::shared_ptr<const Tokenizer>> result_;  // whose destructor waits
};

// Room for copies of experts: what is free, less everything else and a margin.
std::size_t expert_room(const GgufFile& file, const ModelConfig& config) {
  if (config.n_experts == 0) return std::numeric_limits<std::size_t>::max();
  std::uint64_t others = 0;
  for (const Slot& slot : config.slots) {
    const TensorInfo* tensor = file.find_tensor(slot.name);
    if (tensor != nullptr && !slot.is_chosen()) others += tensor->n_bytes;
  }
  const std::uint64_t free = available_memory_bytes();
  const std::uint64_t kept = others + free / 8 + (std::uint64_t{256} << 20);
  return static_cast<std::size_t>(free - std::min(free, kept));
}

}  // namespace

Placement plan_files(const std::vector<PlannedModel>& models, std::uint64_t free_bytes,
                     const DeviceBackend* gpu) {
  std::vector<DeviceDemand> demands;
  DeviceRoom room;
  for (const PlannedModel& planned : models) {
    check_options(*planned.options);
    const std::shared_ptr<const GgufFile> file = GgufFile::open(planned.path);
    demands.push_back(
        device_demand(*file, read_model_config(*file), *planned.options, gpu, planned.name));
    room.budget_bytes = std::max(room.budget_bytes, planned.options->vram_budget);
  }
  room.free_bytes = free_bytes;
  if (gpu != nullptr) {
    if (free_bytes == 0) room.free_bytes = gpu->device_info().free_bytes;
    room.used_bytes = gpu->reserved_bytes();
    room.used_work_bytes = gpu->work_reserved_bytes();
  } else if (free_bytes == 0) {  // a device that is large enough for the budget
    room.free_bytes = 2 * room.budget_bytes + (std::uint64_t{1} << 30);
  }
  return plan_placement(demands, room);
}

const char* kv_type_name(KvType type) {
  switch (type) {
    case KvType::kF32:
      return "f32";
    case KvType::kF16:
      return "f16";
    case KvType::kQ8_0:
      return "q8_0";
  }
  return "?";
}

KvType parse_kv_type(const std::string& name) {
  for (const KvType type : kKvTypes) {
    if (name == kv_type_name(type)) return type;
  }
  throw_invalid("kv_type must be one of f32 f16 q8_0, got '" + printable(name) + "'");
}

LoadedModel::LoadedModel() = default;
LoadedModel::~LoadedModel() = default;

std::shared_ptr<const LoadedModel> LoadedModel::load(const std::string& path,
                                                     const ModelOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  check_options(options);
  const std::shared_ptr<LoadedModel> loaded(new LoadedModel());
  loaded->kv_type_ = parse_kv_type(options.kv_type);
  loaded->n_ctx_ = options.n_ctx;
  loaded->requantize_ = options.requantize;
  loaded->file_ = GgufFile::open(path);
  // First what the model is: an unknown architecture is no tokenizer problem.
  const ModelConfig config = read_model_config(*loaded->file_);
  PendingTokenizer tokenizer(*loaded->file_);
  loaded->backend_ =
      make_cpu_backend(options.n_threads, options.repack == "off" ? Repack::kOff : Repack::kAuto);

  LoadOptions load_options;
  load_options.check_tensors = options.check_tensors;
  load_options.requantize = requantize_type(options);
  load_options.max_expert_bytes = expert_room(*loaded->file_, config);
  if (options.repack != "off")
    load_options.packed_path = packed_path(*loaded->file_, options.requantize);
  load_options.keep_packed = options.repack == "keep" && !load_options.packed_path.empty();
  if (load_options.keep_packed) tidy_packed_folder();
  std::string cpu_reason;
  std::optional<Placement> placement;
  if (const std::shared_ptr<DeviceBackend> gpu = open_gpu(options, config, cpu_reason)) {
    const DeviceDemand demand =
        device_demand(*loaded->file_, config, options, gpu.get(), file_name(path));
    placement = plan_placement({demand}, {.free_bytes = gpu->device_info().free_bytes,
                                          .used_bytes = gpu->reserved_bytes(),
                                          .used_work_bytes = gpu->work_reserved_bytes(),
                                          .budget_bytes = options.vram_budget});
    load_options.n_device_layers = placement->models[0].n_gpu_layers;
    if (load_options.n_device_layers == 0) {
      cpu_reason = "not even one layer and the head fit: " + bytes_text(placement->room_bytes) +
                   (placement->budgeted ? " are left of the budget" : " are free on the GPU");
      if (options.device == "cuda")
        throw Error(ErrorCode::kResource, printable(path, 400) + ": " + cpu_reason +
                                              "; use a larger vram_budget, a smaller context or "
                                              "device 'cpu'");
      placement.reset();
    } else {
      load_options.device = gpu;
      load_options.n_device_ctx = demand.n_ctx;
      load_options.device_embedding = placement->models[0].embedding;
      load_options.device_kv_type = loaded->kv_type_;
    }
  }
  if (options.on_progress) {
    load_options.on_progress = [&options](const LoadProgress& progress) {
      options.on_progress(progress.n_bytes_total == 0
                              ? 1.0
                              : static_cast<double>(progress.n_bytes_done) /
                                    static_cast<double>(progress.n_bytes_total));
      return true;
    };
  }
  try {
    loaded->model_ = Model::load(loaded->file_, loaded->backend_, load_options);
  } catch (...) {
    (void)tokenizer.get();  // a file whose tokenizer we cannot read is refused for that
    throw;
  }
  loaded->tokenizer_ = tokenizer.get();
  const TokenId n_tokens = loaded->tokenizer_->n_tokens();
  if (n_tokens < loaded->model_->config().n_tokens) {
    throw loaded->file_->make_error(ErrorCode::kModelFormat, "bad_vocab",
                                    "the tokenizer has " + std::to_string(n_tokens) +
                                        " tokens, the model " +
                                        std::to_string(loaded->model_->config().n_tokens));
  }

  loaded->options_ = options;
  loaded->options_.on_progress = nullptr;
  loaded->fill_info(options, cpu_reason, placement);
  const std::chrono::duration<double, std::milli> elapsed =
      std::chrono::steady_clock::now() - start;
  loaded->info_.load_ms = elapsed.count();
  return loaded;
}

std::shared_ptr<const LoadedModel> LoadedModel::next_tokens() const {
  const std::lock_guard lock(next_tokens_mutex_);
  if (next_tokens_ != nullptr) return next_tokens_;
  const ModelConfig config = read_model_config(*file_, nullptr, FilePart::kNextTokens);
  const std::shared_ptr<LoadedModel> loaded(new LoadedModel());
  loaded->options_ = options_;
  loaded->kv_type_ = kv_type_;
  loaded->requantize_ = requantize_;
  loaded->file_ = file_;
  loaded->tokenizer_ = tokenizer_;
  loaded->backend_ = backend_;
  LoadOptions options;
  options.part = FilePart::kNextTokens;
  options.check_tensors = options_.check_tensors;
  options.requantize = requantize_type(options_);
  options.max_expert_bytes = expert_room(*file_, config);
  loaded->model_ = Model::load(file_, backend_, options);
  loaded->fill_info(options_, "", std::nullopt);
  next_tokens_ = loaded;
  return loaded;
}

void LoadedModel::fill_info(const ModelOptions& options, const std::string& cpu_reason,
                            const std::optional<Placement>& placement) {
  ModelInfo& info = info_;
  info = describe_model(*file_);
  fill_from_config(*model_, info);
  if (const std::optional<DType> type = requantize_type(options)) {
    const std::size_t saved = model_->memory().requantize_saved_bytes;
    info.weight_bytes -= saved;
    info.bytes_per_step -= saved;
    info.quantisation += std::string(" as ") + dtype_traits(*type).name;
  }
  info.chat_format = chat::recognise_format(tokenizer_->chat_template());
  info.kv_type = options.kv_type;
  info.kv_bytes_per_token = model_->kv_bytes_per_token(kv_type_);
  info.state_bytes = model_->state_bytes();
  info.warnings = model_->warnings();
  for (const std::string& warning : tokenizer_->warnings()) info.warnings.push_back(warning);
  if (const std::size_t n_bytes = model_->memory().mapped_expert_bytes;
      n_bytes > 0 && options.repack != "off") {
    info.warnings.push_back("mapped_experts: " + bytes_text(n_bytes) +
                            " of experts have no room in memory and are read from the file, which "
                            "is slower");
  }
  const BackendInfo backend = backend_->info();
  info.device = backend.name + ": " + backend.description;
  info.n_threads = backend.n_threads;
  info.repack = options.repack;
  info.kept_weight_bytes = model_->memory().kept_bytes;
  info.n_ctx = options.n_ctx;
  info.vram_budget = options.vram_budget;
  info.cpu_reason = cpu_reason;
  if (!placement) return;
  const BackendInfo gpu = model_->device()->info();
  const ModelPlacement& placed = placement->models[0];
  info.n_gpu_layers = placed.n_gpu_layers;
  info.gpu_context = placed.n_ctx;
  info.gpu_bytes = placed.reserved_bytes();
  info.placement = placement->lines();
  info.device = gpu.name + ": " + gpu.description + (placed.whole() ? "" : "; " + info.device);
}

const std::shared_ptr<DeviceBackend>& LoadedModel::gpu() const noexcept { return model_->device(); }

const std::string& LoadedModel::chat_template() const noexcept {
  return tokenizer_->chat_template();
}

std::vector<TokenId> LoadedModel::encode(const std::vector<PromptPiece>& pieces, int add_bos,
                                         const std::function<void()>& poll) const {
  if (add_bos < -1 || add_bos > 1) {
    throw_invalid("add_bos must be -1 (as the file says), 0 or 1, got " + std::to_string(add_bos));
  }
  EncodeOptions options;
  if (add_bos >= 0) options.add_bos = add_bos == 1;
  options.poll = poll;
  return tokenizer_->encode_chat(pieces, options);
}

}  // namespace specdec
