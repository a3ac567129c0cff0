// LoadedModel as _core.Model, and check_pair().
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "base/checked.h"
#include "base/error.h"
#include "bindings/common.h"
#include "bindings/interrupts.h"
#include "bindings/native_call.h"
#include "engine/chat_prompt.h"
#include "engine/hidden_states.h"
#include "engine/pair.h"
#include "tokenizer/tokenizer.h"

namespace specdec::bindings {
namespace {

// Lone surrogates of Python's texts come back as they went in.
py::str to_python_text(const std::string& bytes) {
  PyObject* text =
      PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "surrogatepass");
  if (text == nullptr) {
    PyErr_Clear();  // bytes of a template that are not UTF-8
    return to_text(bytes);
  }
  return py::reinterpret_steal<py::str>(text);
}

ModelHandle load(const std::string& path, ModelOptions options, const py::object& on_progress,
                 bool poll_signals) {
  require_same_process();
  SignalPoll signals(poll_signals);
  options.on_progress = [&](double fraction) {
    signals.throw_if_interrupted();
    if (on_progress.is_none()) return;
    py::gil_scoped_acquire gil;
    on_progress(fraction);
  };
  ModelHandle handle;
  try {
    const NativeCall call;
    handle.model = LoadedModel::load(path, options);
  } catch (const SignalPoll::Interrupted&) {
    signals.raise();
  }
  return handle;
}

Fields info_dict(const ModelHandle& handle) {
  const ModelInfo& info = handle.model->info();
  Fields result;
  result["path"] = to_text(info.path);
  result["architecture"] = to_text(info.architecture);
  result["name"] = to_text(info.name);
  result["n_params"] = info.n_params;
  result["size_bytes"] = info.size_bytes;
  result["weight_bytes"] = info.weight_bytes;
  result["tensor_types"] = info.tensor_types;
  result["quantisation"] = to_text(info.quantisation);
  result["context_length"] = info.context_length;
  result["vocab_size"] = info.vocab_size;
  result["n_vocab_rows"] = info.n_vocab_rows;
  result["n_layers"] = info.n_layers;
  result["hidden_size"] = info.hidden_size;
  result["ffn_size"] = info.ffn_size;
  result["n_experts"] = info.n_experts;
  result["n_experts_used"] = info.n_experts_used;
  result["n_heads"] = info.n_heads;
  result["n_kv_heads"] = info.n_kv_heads;
  result["head_dim"] = info.head_dim;
  result["tied_head"] = info.tied_head;
  result["tokenizer"] = to_text(info.tokenizer);
  result["chat_format"] = to_text(info.chat_format);
  result["kv_bytes_per_token"] = info.kv_bytes_per_token;
  result["state_bytes"] = info.state_bytes;
  result["bytes_per_step"] = info.bytes_per_step;
  result["kv_type"] = to_text(info.kv_type);
  result["device"] = to_text(info.device);
  result["n_threads"] = info.n_threads;
  result["repack"] = to_text(info.repack);
  result["kept_weight_bytes"] = info.kept_weight_bytes;
  result["n_ctx"] = info.n_ctx > 0 ? py::object(py::int_(info.n_ctx)) : py::none();
  result["vram_budget"] =
      info.vram_budget > 0 ? py::object(py::int_(info.vram_budget)) : py::none();
  result["load_ms"] = info.load_ms;
  result["n_gpu_layers"] = info.n_gpu_layers;
  result["gpu_context"] = info.gpu_context;
  result["gpu_bytes"] = info.gpu_bytes;
  result["placement"] = info.placement;
  result["cpu_reason"] = to_text(info.cpu_reason);
  result["add_bos"] = handle.model->tokenizer().add_bos();
  py::list warnings;
  for (const std::string& warning : info.warnings) warnings.append(to_text(warning));
  result["warnings"] = std::move(warnings);
  return result;
}

// A conversation, as JSON, to the text and the tokens of its prompt.
std::pair<py::str, std::vector<TokenId>> chat_prompt(
    const ModelHandle& handle, const py::bytes& messages, const py::bytes& tools,
    const py::bytes& chat_template, const py::bytes& arguments, bool add_generation_prompt,
    bool poll_signals) {
  ChatOptions options;
  options.tools_json = tools;
  options.chat_template = chat_template;
  options.arguments_json = arguments;
  options.add_generation_prompt = add_generation_prompt;
  SignalPoll signals(poll_signals);
  options.should_cancel = [&signals] { return signals.interrupted(); };
  const std::string messages_json = messages;
  ChatPrompt prompt;
  try {
    const NativeCall call;
    prompt =
        make_chat_prompt(handle.model->file(), handle.model->tokenizer(), messages_json, options);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kCancelled) signals.raise();
    throw;
  }
  return {to_python_text(prompt.text()), std::move(prompt.ids)};
}

std::map<std::string, py::str> named_templates(const ModelHandle& handle) {
  std::map<std::string, py::str> result;
  for (const auto& [name, source] : chat_templates(handle.model->file())) {
    result.emplace(name, to_text(source));
  }
  return result;
}

std::vector<TokenId> tokenize(const ModelHandle& handle, const py::bytes& bytes, bool add_special,
                              bool parse_special, bool poll_signals) {
  const std::string text = bytes;
  SignalPoll signals(poll_signals);
  EncodeOptions options;
  options.poll = [&] { signals.throw_if_interrupted(); };
  if (!add_special) options.add_bos = false;
  options.parse_special = parse_special;
  try {
    const NativeCall call;
    return handle.model->tokenizer().encode(text, options);
  } catch (const SignalPoll::Interrupted&) {
    signals.raise();
  }
}

py::str detokenize(const ModelHandle& handle, const std::vector<TokenId>& tokens,
                   bool render_special, bool strip_space_prefix) {
  DecodeOptions options;
  options.render_special = render_special;
  options.strip_space_prefix = strip_space_prefix;
  std::string text;
  {
    const NativeCall call;
    text = handle.model->tokenizer().decode(tokens, options);
  }
  return to_text(text);
}

HiddenStates hidden_states(const ModelHandle& handle, const std::vector<TokenId>& tokens,
                           const std::vector<std::int32_t>& layers, int n_ctx, bool poll_signals) {
  SignalPoll signals(poll_signals);
  try {
    const NativeCall call;
    return read_hidden_states(
        *handle.model, tokens, layers, [&] { signals.throw_if_interrupted(); }, nullptr, n_ctx);
  } catch (const SignalPoll::Interrupted&) {
    signals.raise();
  }
}

// A copy of what a memoryview() of others shows.
HiddenStates copied_states(const py::bytes& numbers, std::size_t n_tokens, std::size_t n_layers,
                           std::size_t n_embd) {
  const std::string_view bytes = numbers;
  HiddenStates states{.n_tokens = n_tokens, .n_layers = n_layers, .n_embd = n_embd, .values = {}};
  const std::optional<std::uint64_t> rows = checked_mul(n_tokens, n_layers);
  const std::optional<std::uint64_t> all = rows ? checked_mul(*rows, n_embd) : std::nullopt;
  if (!all || bytes.size() % sizeof(float) != 0 || *all != bytes.size() / sizeof(float))
    throw_invalid("hidden states of " + std::to_string(n_tokens) + " x " +
                  std::to_string(n_layers) + " x " + std::to_string(n_embd) +
                  " numbers do not have " + std::to_string(bytes.size()) + " bytes");
  states.values.resize(static_cast<std::size_t>(*all));
  std::memcpy(states.values.data(), bytes.data(), bytes.size());
  return states;
}

// The numbers themselves, for memoryview().
void bind_hidden_states(py::module_& m) {
  py::class_<HiddenStates>(m, "HiddenStates", py::module_local(), py::buffer_protocol())
      .def(py::init(&copied_states), py::arg("numbers"), py::arg("n_tokens"), py::arg("n_layers"),
           py::arg("n_embd"))
      .def_buffer([](HiddenStates& h) {
        const auto size = [](std::size_t n) { return static_cast<py::ssize_t>(n); };
        return py::buffer_info(h.values.data(),
                               std::vector{size(h.n_tokens), size(h.n_layers), size(h.n_embd)},
                               std::vector{size(h.n_layers * h.n_embd * sizeof(float)),
                                           size(h.n_embd * sizeof(float)), size(sizeof(float))});
      });
}

Fields pair_dict(const ModelHandle& target, const ModelHandle& draft) {
  PairReport report;
  {
    const NativeCall call;
    report = check_pair(*target.model, *draft.model);
  }
  Fields result;
  result["compatible"] = report.compatible;
  result["identical"] = report.identical;
  result["n_target_tokens"] = report.n_target_tokens;
  result["n_draft_tokens"] = report.n_draft_tokens;
  result["n_shared_tokens"] = report.n_shared_tokens;
  result["first_difference"] = report.first_difference;
  result["target_text"] = to_text(report.target_text);
  result["draft_text"] = to_text(report.draft_text);
  result["reason"] = to_text(report.reason);
  result["warnings"] = report.warnings;
  result["cost_ratio"] = report.cost_ratio;
  result["memory_bytes"] = report.memory_bytes;
  result["kv_bytes_per_token"] = report.kv_bytes_per_token;
  return result;
}

}  // namespace

// What every token stands for in a text.
py::typing::List<py::bytes> token_bytes(const ModelHandle& handle) {
  const Tokenizer& tokenizer = handle.model->tokenizer();
  py::typing::List<py::bytes> list;
  for (TokenId token = 0; token < tokenizer.n_tokens(); ++token)
    list.append(py::bytes(std::string(tokenizer.token_bytes(token))));
  return list;
}

std::vector<TokenId> hidden_ids(const ModelHandle& handle) {
  const Tokenizer& tokenizer = handle.model->tokenizer();
  std::vector<TokenId> ids;
  for (TokenId token = 0; token < tokenizer.n_tokens(); ++token)
    if (tokenizer.is_hidden(token)) ids.push_back(token);
  return ids;
}

void bind_model(py::module_& m) {
  bind_hidden_states(m);
  py::class_<ModelHandle>(m, "Model", py::module_local())
      .def(py::init([](const py::bytes& path, const std::string& device, int n_threads,
                       const std::string& kv_type, const std::string& repack, bool check_tensors,
                       const std::string& requantize, int n_gpu_layers,
                       const std::string& vram_budget, int n_ctx, const py::object& on_progress,
                       bool poll_signals) {
             ModelOptions options;
             options.device = device;
             options.n_threads = n_threads;
             options.kv_type = kv_type;
             options.repack = repack;
             options.check_tensors = check_tensors;
             options.requantize = requantize;
             options.n_gpu_layers = n_gpu_layers;
             options.n_ctx = n_ctx;
             if (!vram_budget.empty())
               options.vram_budget = parse_bytes("vram_budget", vram_budget);
             return load(path, std::move(options), on_progress, poll_signals);
           }),
           py::arg("path"), py::kw_only(), py::arg("device"), py::arg("n_threads"),
           py::arg("kv_type"), py::arg("repack"), py::arg("check_tensors"), py::arg("requantize"),
           py::arg("n_gpu_layers"), py::arg("vram_budget"), py::arg("n_ctx"),
           py::arg("on_progress"), py::arg("poll_signals"))
      .def("info", &info_dict)
      .def(
          "metadata",
          [](const ModelHandle& handle, std::uint64_t max_array) {
            return metadata_dict(handle.model->file(), max_array);
          },
          py::kw_only(), py::arg("max_array"))
      .def("chat_template",
           [](const ModelHandle& handle) { return to_text(handle.model->chat_template()); })
      .def("chat_templates", &named_templates)
      .def("chat_prompt", &chat_prompt, py::arg("messages"), py::kw_only(), py::arg("tools"),
           py::arg("chat_template"), py::arg("arguments"), py::arg("add_generation_prompt"),
           py::arg("poll_signals"))
      .def("tokenize", &tokenize, py::arg("text"), py::kw_only(), py::arg("add_special"),
           py::arg("parse_special"), py::arg("poll_signals"))
      .def("detokenize", &detokenize, py::arg("tokens"), py::kw_only(), py::arg("render_special"),
           py::arg("strip_space_prefix"))
      .def(
          "token_text",
          [](const ModelHandle& handle, TokenId token) {
            return to_text(handle.model->tokenizer().token_text(token));
          },
          py::arg("token"))
      .def("hidden_states", &hidden_states, py::arg("tokens"), py::arg("layers"), py::kw_only(),
           py::arg("n_ctx"), py::arg("poll_signals"))
      .def("token_bytes", &token_bytes)
      .def("hidden_ids", &hidden_ids)
      .def("eog_ids",
           [](const ModelHandle& handle) {
             const auto& ids = handle.model->tokenizer().eog_ids();
             return std::vector<TokenId>(ids.begin(), ids.end());
           })
      .def_property_readonly(
          "bos_id", [](const ModelHandle& handle) { return handle.model->tokenizer().bos_id(); })
      .def_property_readonly(
          "eos_id", [](const ModelHandle& handle) { return handle.model->tokenizer().eos_id(); });
  m.def("check_pair", &pair_dict, py::arg("target"), py::arg("draft"));
}

}  // namespace specdec::bindings
