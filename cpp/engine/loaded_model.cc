#include "engine/loaded_model.h"

#include <chrono>

#include "backend/backend.h"
#include "base/error.h"
#include "gguf/reader.h"
#include "model/config.h"
#include "model/model.h"
#include "quant/requantize.h"
#include "tokenizer/chat_format.h"
#include "tokenizer/tokenizer.h"

namespace specdec {
namespace {

constexpr KvType kKvTypes[] = {KvType::kF32, KvType::kF16, KvType::kQ8_0};

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
}

}  // namespace

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
  if (options.device != "auto" && options.device != "cpu") {
    throw_invalid("device must be 'auto' or 'cpu' in this build, got '" +
                  printable(options.device) + "'");
  }
  if (options.n_threads < 0 || options.n_threads > 256) {
    throw_invalid("n_threads must be 1 to 256, or 0 for one per core, got " +
                  std::to_string(options.n_threads));
  }
  if (options.repack != "auto" && options.repack != "off") {
    throw_invalid("repack must be 'auto' or 'off', got '" + printable(options.repack) + "'");
  }
  const std::shared_ptr<LoadedModel> loaded(new LoadedModel());
  loaded->kv_type_ = parse_kv_type(options.kv_type);
  loaded->file_ = GgufFile::open(path);
  // First what the model is: an unknown architecture is no tokenizer problem.
  (void)read_model_config(*loaded->file_);
  // Before the weights: a file whose tokenizer we cannot read is refused at once.
  loaded->tokenizer_ = Tokenizer::from_gguf(*loaded->file_);
  loaded->backend_ =
      make_cpu_backend(options.n_threads, options.repack == "off" ? Repack::kOff : Repack::kAuto);

  LoadOptions load_options;
  load_options.check_tensors = options.check_tensors;
  if (!options.requantize.empty())
    load_options.requantize = parse_requantize_type(options.requantize);
  if (options.on_progress) {
    load_options.on_progress = [&options](const LoadProgress& progress) {
      options.on_progress(progress.n_bytes_total == 0
                              ? 1.0
                              : static_cast<double>(progress.n_bytes_done) /
                                    static_cast<double>(progress.n_bytes_total));
      return true;
    };
  }
  loaded->model_ = Model::load(loaded->file_, loaded->backend_, load_options);
  const TokenId n_tokens = loaded->tokenizer_->n_tokens();
  if (n_tokens < loaded->model_->config().n_tokens) {
    throw loaded->file_->make_error(ErrorCode::kModelFormat, "bad_vocab",
                                    "the tokenizer has " + std::to_string(n_tokens) +
                                        " tokens, the model " +
                                        std::to_string(loaded->model_->config().n_tokens));
  }

  ModelInfo& info = loaded->info_;
  info = describe_model(*loaded->file_);
  fill_from_config(*loaded->model_, info);
  if (load_options.requantize) {
    const std::size_t saved = loaded->model_->memory().requantize_saved_bytes;
    info.weight_bytes -= saved;
    info.bytes_per_step -= saved;
    info.quantisation += std::string(" as ") + dtype_traits(*load_options.requantize).name;
  }
  if (const auto format = detect_chat_format(loaded->tokenizer_->chat_template())) {
    info.chat_format = chat_format_name(*format);
  }
  info.kv_type = options.kv_type;
  info.kv_bytes_per_token = loaded->model_->kv_bytes_per_token(loaded->kv_type_);
  info.warnings = loaded->model_->warnings();
  for (const std::string& warning : loaded->tokenizer_->warnings()) {
    info.warnings.push_back(warning);
  }
  const BackendInfo backend = loaded->backend_->info();
  info.device = backend.name + ": " + backend.description;
  info.n_threads = backend.n_threads;
  info.repack = options.repack;
  const std::chrono::duration<double, std::milli> elapsed =
      std::chrono::steady_clock::now() - start;
  info.load_ms = elapsed.count();
  return loaded;
}

const std::string& LoadedModel::chat_template() const noexcept {
  return tokenizer_->chat_template();
}

std::vector<TokenId> LoadedModel::encode(const std::vector<PromptPiece>& pieces,
                                         int add_bos) const {
  if (add_bos < -1 || add_bos > 1) {
    throw_invalid("add_bos must be -1 (as the file says), 0 or 1, got " + std::to_string(add_bos));
  }
  EncodeOptions options;
  if (add_bos >= 0) options.add_bos = add_bos == 1;
  return tokenizer_->encode_chat(pieces, options);
}

}  // namespace specdec
