// The engine as Python sees it in tests: sessions with every option, driven from several threads.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/device_slab.h"
#include "base/error.h"
#include "base/system.h"
#include "emulated_device.h"
#include "engine/hidden_states.h"
#include "engine/loaded_model.h"
#include "engine/memory.h"
#include "engine/pair.h"
#include "engine/perplexity.h"
#include "engine/scheduler.h"
#include "engine/session.h"
#include "engine/speed.h"
#include "engine/spread.h"
#include "error_code.h"
#include "model/model.h"

namespace py = pybind11;
using namespace specdec;

namespace {

// pybind11 has no holder for pointers to const.
struct Handle {
  std::shared_ptr<const LoadedModel> model;
};
struct Gpu {
  std::shared_ptr<DeviceBackend> backend;
  std::shared_ptr<testing::EmulatedFaults> faults = {};  // null: a real one
};

struct Token {
  std::atomic<bool> set{false};
};

Handle load(const std::string& path, int n_threads, const std::string& kv_type, bool check_tensors,
            std::function<void(double)> on_progress, const std::string& device,
            const std::string& requantize, const Gpu* gpu, int n_gpu_layers,
            std::uint64_t vram_budget, int n_ctx) {
  ModelOptions options;
  options.n_threads = n_threads;
  options.kv_type = kv_type;
  options.check_tensors = check_tensors;
  options.on_progress = std::move(on_progress);
  options.device = device;
  options.requantize = requantize;
  if (gpu != nullptr) options.gpu = gpu->backend;
  options.n_gpu_layers = n_gpu_layers;
  options.vram_budget = vram_budget;
  options.n_ctx = n_ctx;
  return {LoadedModel::load(path, options)};
}

template <typename T>
void set(const py::kwargs& kwargs, const char* name, T& field) {
  if (kwargs.contains(name)) field = kwargs[name].cast<T>();
}

// Every drafter of a session that has an option takes it.
void set_lengths(const py::kwargs& kwargs, DraftLengths& lengths) {
  set(kwargs, "draft_max", lengths.draft_max);
  set(kwargs, "draft_min", lengths.draft_min);
  set(kwargs, "gamma", lengths.gamma);
}
template <typename Options>
void set_sampling(const py::kwargs& kwargs, Options& o) {
  if (kwargs.contains("draft_sampling"))
    o.mode = parse_draft_mode(kwargs["draft_sampling"].cast<std::string>());
  set(kwargs, "draft_temperature", o.temperature);
}
void set_drafter(const py::kwargs& kwargs, DraftModelOptions& o) {
  set_lengths(kwargs, o.lengths);
  set_sampling(kwargs, o);
  int top_k = 0;
  set(kwargs, "draft_top_k", top_k);
  if (top_k > 0) o.top_k = top_k;
  set(kwargs, "draft_branch", o.branch);
}
void set_drafter(const py::kwargs& kwargs, EagleOptions& o) {
  set_lengths(kwargs, o.lengths);
  set_sampling(kwargs, o);
}
void set_drafter(const py::kwargs& kwargs, MtpOptions& o) {
  set_lengths(kwargs, o.lengths);
  set_sampling(kwargs, o);
}
void set_drafter(const py::kwargs& kwargs, LayerSkipOptions& o) {
  set_lengths(kwargs, o.lengths);
  set_sampling(kwargs, o);
  set(kwargs, "draft_layers", o.n_layers);
}
void set_drafter(const py::kwargs& kwargs, NGramOptions& o) {
  set_lengths(kwargs, o.lengths);
  set(kwargs, "ngram_n", o.n);
  set(kwargs, "ngram_filler_top_k", o.filler_top_k);
  set(kwargs, "ngram_keep", o.keep);
}
void set_drafter(const py::kwargs& kwargs, SuffixOptions& o) {
  set_lengths(kwargs, o.lengths);
  set(kwargs, "suffix_min_match", o.min_match);
  set(kwargs, "suffix_keep", o.keep);
  set(kwargs, "suffix_corpus", o.corpus_text);
}
void set_drafter(const py::kwargs& kwargs, RecyclingOptions& o) {
  set_lengths(kwargs, o.lengths);
  set(kwargs, "recycling_top_k", o.top_k);
  set(kwargs, "recycling_tree", o.tree);
  set(kwargs, "recycling_keep", o.keep);
}

SessionOptions session_options(const Handle* draft, const py::kwargs& kwargs) {
  SessionOptions o;
  if (draft != nullptr) o.draft = draft->model;
  std::string names = "auto";
  set(kwargs, "drafter", names);
  o.drafters = parse_drafters(names, draft != nullptr);
  o.adaptive = names == "auto";
  if (kwargs.contains("draft_sampling"))  // whoever drafts
    (void)parse_draft_mode(kwargs["draft_sampling"].cast<std::string>());
  for (DrafterOptions& drafter : o.drafters)
    std::visit([&](auto& d) { set_drafter(kwargs, d); }, drafter);
  set(kwargs, "verifier", o.verifier);
  set(kwargs, "n_ctx", o.n_ctx);
  set(kwargs, "kv_type", o.kv_type);
  set(kwargs, "use_cache", o.use_cache);
  return o;
}

std::unique_ptr<Session> make_session(const Handle& target, const Handle* draft,
                                      const py::kwargs& kwargs) {
  return std::make_unique<Session>(target.model, session_options(draft, kwargs));
}

py::dict chunk_dict(const OutputChunk& chunk) {
  py::dict d;
  d["text"] = chunk.text;  // as str: fails unless it is UTF-8
  d["token_ids"] = chunk.token_ids;
  d["text_ends"] = chunk.text_ends;
  d["from_draft"] = chunk.from_draft;
  d["n_logprobs"] = chunk.logprobs.size();
  return d;
}

py::dict result_dict(const GenerateResult& r) {
  py::dict d;
  d["text"] = r.text;
  d["token_ids"] = r.token_ids;
  d["from_draft"] = r.from_draft;
  d["finish_reason"] = r.finish_reason;
  d["stop_reason"] = r.stop_reason;
  d["n_prompt_tokens"] = r.n_prompt_tokens;
  d["n_reused_tokens"] = r.n_reused_tokens;
  py::list logprobs;
  for (const TokenLogprobs& p : r.logprobs)
    logprobs.append(py::make_tuple(p.token, p.logprob, p.top));
  d["logprobs"] = logprobs;
  const DecodeStats& s = r.stats;
  d["rounds"] = s.rounds;
  d["plain_steps"] = s.plain_steps;
  d["drafted"] = s.drafted;
  d["accepted"] = s.accepted;
  d["emitted"] = s.emitted;
  d["accepted_cut"] = s.accepted_cut;
  d["cut"] = s.cut;
  d["reread_tokens"] = s.reread_tokens;
  d["draft_reread_tokens"] = s.draft_reread_tokens;
  d["speculation"] = s.speculation;
  d["note"] = s.note;
  return d;
}

Placement plan(const std::vector<py::dict>& models, std::uint64_t free_bytes,
               std::uint64_t budget_bytes, std::uint64_t used_bytes,
               std::uint64_t used_work_bytes) {
  std::vector<DeviceDemand> demands;
  for (const py::dict& model : models) {
    demands.push_back({.name = model["name"].cast<std::string>(),
                       .layer_bytes = model["layers"].cast<std::vector<std::uint64_t>>(),
                       .head_bytes = model["head"].cast<std::uint64_t>(),
                       .embedding_bytes = model["embedding"].cast<std::uint64_t>(),
                       .kv_layer_bytes = model["kv"].cast<std::uint64_t>(),
                       .n_ctx = 4096,
                       .work_bytes = model["work"].cast<std::uint64_t>(),
                       .n_gpu_layers = model["n"].cast<int>()});
  }
  return plan_placement(demands, {.free_bytes = free_bytes,
                                  .used_bytes = used_bytes,
                                  .used_work_bytes = used_work_bytes,
                                  .budget_bytes = budget_bytes});
}

GenerateRequest request_of(const py::kwargs& kwargs) {
  GenerateRequest r;
  set(kwargs, "prompt", r.prompt);
  set(kwargs, "prompt_ids", r.prompt_ids);
  if (kwargs.contains("pieces")) {
    for (const auto& piece : kwargs["pieces"].cast<std::vector<std::pair<std::string, bool>>>()) {
      r.pieces.push_back({piece.first, piece.second});
    }
  }
  set(kwargs, "parse_special", r.parse_special);
  set(kwargs, "add_bos", r.add_bos);
  set(kwargs, "max_tokens", r.max_tokens);
  set(kwargs, "temperature", r.sampling.temperature);
  set(kwargs, "top_k", r.sampling.top_k);
  set(kwargs, "seed", r.sampling.seed);
  set(kwargs, "logit_bias", r.sampling.logit_bias);
  set(kwargs, "repetition_penalty", r.sampling.repetition_penalty);
  set(kwargs, "stop", r.stop);
  set(kwargs, "ignore_eos", r.ignore_eos);
  set(kwargs, "n_logprobs", r.n_logprobs);
  set(kwargs, "render_special", r.render_special);
  return r;
}

py::dict generate(Session& session, const py::kwargs& kwargs) {
  GenerateRequest r = request_of(kwargs);
  if (kwargs.contains("on_chunk")) {
    r.on_chunk = [f = kwargs["on_chunk"].cast<py::function>()](const OutputChunk& chunk) {
      const py::gil_scoped_acquire gil;
      f(chunk_dict(chunk));
    };
  }
  if (kwargs.contains("on_progress")) {
    r.on_progress = [f = kwargs["on_progress"].cast<py::function>()](int n, int total) {
      const py::gil_scoped_acquire gil;
      f(n, total);
    };
  }
  if (kwargs.contains("should_cancel")) {
    r.should_cancel = [f = kwargs["should_cancel"].cast<py::function>()] {
      const py::gil_scoped_acquire gil;
      return f().cast<bool>();
    };
  }
  if (kwargs.contains("cancel")) r.cancel = &kwargs["cancel"].cast<Token&>().set;
  GenerateResult result;
  {
    const py::gil_scoped_release release;
    result = session.generate(r);
  }
  return result_dict(result);
}

class WaitedSink final : public RequestSink {
 public:
  void on_end(const GenerateResult& result) override { ended_.set_value(result); }
  void on_error(const std::exception_ptr& error) override { ended_.set_exception(error); }
  [[nodiscard]] GenerateResult wait() { return ended_.get_future().get(); }

 private:
  std::promise<GenerateResult> ended_;
};

// All requests at once; their results, passes and rows.
py::tuple schedule(const Handle& target, const Handle* draft, const std::vector<py::dict>& requests,
                   int max_requests, const py::kwargs& kwargs) {
  SchedulerOptions options;
  options.session = session_options(draft, kwargs);
  options.max_requests = max_requests;
  std::vector<GenerateRequest> list;
  for (const py::dict& request : requests) list.push_back(request_of(py::kwargs(request)));
  std::vector<GenerateResult> results;
  SchedulerStats stats;
  {
    const py::gil_scoped_release release;
    Scheduler scheduler(target.model, options);
    std::vector<std::shared_ptr<WaitedSink>> sinks;
    for (GenerateRequest& request : list) {
      sinks.push_back(std::make_shared<WaitedSink>());
      if (scheduler.submit(std::move(request), sinks.back()) == nullptr)
        throw Error(ErrorCode::kBusy, "the queue is full");
    }
    for (const auto& sink : sinks) results.push_back(sink->wait());
    stats = scheduler.stats();
  }
  py::list found;
  for (const GenerateResult& result : results) found.append(result_dict(result));
  return py::make_tuple(found, stats.n_passes, stats.n_rows);
}

py::dict pair_dict(const Handle& target, const Handle& draft) {
  const PairReport r = check_pair(*target.model, *draft.model);
  py::dict d;
  d["compatible"] = r.compatible;
  d["identical"] = r.identical;
  d["n_shared_tokens"] = r.n_shared_tokens;
  d["first_difference"] = r.first_difference;
  d["target_text"] = r.target_text;
  d["draft_text"] = r.draft_text;
  d["reason"] = r.reason;
  d["warnings"] = r.warnings;
  d["cost_ratio"] = r.cost_ratio;
  d["memory_bytes"] = r.memory_bytes;
  d["kv_bytes_per_token"] = r.kv_bytes_per_token;
  return d;
}

}  // namespace

PYBIND11_MODULE(_testing_engine, m) {
  static PyObject* error_class =
      PyErr_NewException("_testing_engine.Error", PyExc_RuntimeError, nullptr);
  m.attr("Error") = py::reinterpret_borrow<py::object>(error_class);
  py::register_local_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const Error& error) {
      const py::object instance = py::reinterpret_borrow<py::object>(error_class)(error.what());
      instance.attr("code") = testing::code_name(error.code());
      PyErr_SetObject(error_class, instance.ptr());
    }
  });

  py::class_<Handle>(m, "Model", py::module_local())
      .def_property_readonly("n_tokens",
                             [](const Handle& h) { return h.model->tokenizer().n_tokens(); })
      .def_property_readonly("fingerprint", [](const Handle& h) { return h.model->fingerprint(); })
      .def_property_readonly("context_length",
                             [](const Handle& h) { return h.model->info().context_length; })
      .def_property_readonly("bytes_per_step",
                             [](const Handle& h) { return h.model->info().bytes_per_step; })
      .def_property_readonly("weight_bytes",
                             [](const Handle& h) { return h.model->info().weight_bytes; })
      .def_property_readonly("kv_bytes_per_token",
                             [](const Handle& h) { return h.model->info().kv_bytes_per_token; })
      .def(
          "encode",
          [](const Handle& h, const std::vector<std::pair<std::string, bool>>& pieces, int add_bos,
             const std::function<void()>& poll) {
            std::vector<PromptPiece> all;
            for (const auto& [text, special] : pieces) all.push_back({text, special});
            return h.model->encode(all, add_bos, poll);
          },
          py::arg("pieces"), py::arg("add_bos") = -1, py::arg("poll") = py::none())
      .def_property_readonly("info",
                             [](const Handle& h) {
                               const ModelInfo& info = h.model->info();
                               py::dict d;
                               d["device"] = info.device;
                               d["n_gpu_layers"] = info.n_gpu_layers;
                               d["gpu_bytes"] = info.gpu_bytes;
                               d["gpu_context"] = info.gpu_context;
                               d["placement"] = info.placement;
                               d["cpu_reason"] = info.cpu_reason;
                               return d;
                             })
      .def("decode",
           [](const Handle& h, const std::vector<TokenId>& ids) {
             return h.model->tokenizer().decode(ids);
           })
      .def(
          "hidden_states",
          [](const Handle& h, const std::vector<TokenId>& tokens,
             const std::vector<std::int32_t>& layers) {
            HiddenStates states;
            {
              const py::gil_scoped_release release;
              states = read_hidden_states(*h.model, tokens, layers);
            }
            return py::array_t<float>({states.n_tokens, states.n_layers, states.n_embd},
                                      states.values.data());
          },
          py::arg("tokens"), py::arg("layers"));
  m.def("load", &load, py::arg("path"), py::kw_only(), py::arg("n_threads") = 0,
        py::arg("kv_type") = "f16", py::arg("check_tensors") = false,
        py::arg("on_progress") = py::none(), py::arg("device") = "auto", py::arg("requantize") = "",
        py::arg("gpu") = py::none(), py::arg("n_gpu_layers") = -1, py::arg("vram_budget") = 0,
        py::arg("n_ctx") = 0);
  m.def("check_pair", &pair_dict);

  py::class_<Gpu>(m, "Gpu", py::module_local())
      .def_property_readonly("info",
                             [](const Gpu& gpu) {
                               const DeviceInfo info = gpu.backend->device_info();
                               py::dict d;
                               d["name"] = info.name;
                               d["architecture"] = info.architecture;
                               d["total_bytes"] = info.total_bytes;
                               d["free_bytes"] = info.free_bytes;
                               return d;
                             })
      .def_property_readonly("reserved_bytes",
                             [](const Gpu& gpu) { return gpu.backend->reserved_bytes(); })
      .def_property_readonly("work_bytes",
                             [](const Gpu& gpu) { return gpu.backend->work_reserved_bytes(); })
      .def_property_readonly("free_bytes", [](const Gpu& gpu) { return gpu.backend->free_bytes(); })
      .def_property_readonly("n_waits",
                             [](const Gpu& gpu) { return gpu.backend->device_stats().n_waits; })
      // The n-th launch, copy or replay from now on fails, or the n-th wait; 0: none. Returns how
      // many were left.
      .def("fail_issue", [](Gpu& gpu, int n) { return gpu.faults->issues.exchange(n); })
      .def("fail_recording", [](Gpu& gpu, int n) { return gpu.faults->recordings.exchange(n); })
      .def("fail_wait", [](Gpu& gpu, int n) { return gpu.faults->waits.exchange(n); })
      .def("fail_pinned", [](Gpu& gpu, int n) { return gpu.faults->pinned.exchange(n); })
      .def_property_readonly("stats", [](const Gpu& gpu) {
        const DeviceStats s = gpu.backend->device_stats();
        return std::tuple(s.n_passes, s.n_replayed, s.device_ms);
      });
  // A device in host memory: every kernel thread by thread.
  m.def(
      "emulated_gpu",
      [](std::size_t n_bytes) {
        auto faults = std::make_shared<testing::EmulatedFaults>();
        return Gpu{testing::make_emulated_device(n_bytes, faults), faults};
      },
      py::arg("n_bytes"));
  m.def("cuda_gpu", [] { return Gpu{make_cuda_backend(0), nullptr}; });
  m.def("cuda_devices", [] {
    std::string reason;
    std::vector<std::string> names;
    for (const DeviceInfo& device : cuda_devices(&reason)) names.push_back(device.name);
    return std::pair(names, reason);
  });

  py::class_<ModelPlacement>(m, "ModelPlacement", py::module_local())
      .def_readonly("name", &ModelPlacement::name)
      .def_readonly("n_layers", &ModelPlacement::n_layers)
      .def_readonly("n_gpu_layers", &ModelPlacement::n_gpu_layers)
      .def_readonly("embedding", &ModelPlacement::embedding)
      .def_readonly("weight_bytes", &ModelPlacement::weight_bytes)
      .def_readonly("kv_bytes", &ModelPlacement::kv_bytes);
  py::class_<Placement>(m, "Placement", py::module_local())
      .def_readonly("models", &Placement::models)
      .def_readonly("work_bytes", &Placement::work_bytes)
      .def_readonly("room_bytes", &Placement::room_bytes)
      .def_readonly("budgeted", &Placement::budgeted)
      .def_property_readonly("total_bytes", &Placement::total_bytes)
      .def_property_readonly("lines", &Placement::lines);
  m.def("plan", &plan, py::arg("models"), py::arg("free_bytes"), py::arg("budget_bytes") = 0,
        py::arg("used_bytes") = 0, py::arg("used_work_bytes") = 0);
  m.def("device_margin_bytes", &device_margin_bytes);
  m.def("parse_bytes", &parse_bytes);
  m.def("bytes_text", &bytes_text);

  // Addresses as numbers: the slab never touches what it hands out.
  py::class_<DeviceSlab>(m, "Slab", py::module_local())
      .def(py::init<>())
      .def("add", [](DeviceSlab& s, std::uintptr_t at,
                     std::size_t n) { s.add(reinterpret_cast<std::byte*>(at), n); })
      .def("remove", [](DeviceSlab& s, std::uintptr_t at,
                        std::size_t n) { return s.remove(reinterpret_cast<std::byte*>(at), n); })
      .def("take",
           [](DeviceSlab& s, std::size_t n) { return reinterpret_cast<std::uintptr_t>(s.take(n)); })
      .def("give_back", [](DeviceSlab& s, std::uintptr_t at,
                           std::size_t n) { s.give_back(reinterpret_cast<std::byte*>(at), n); })
      .def_property_readonly("free_bytes", &DeviceSlab::free_bytes)
      .def_property_readonly("largest_free", &DeviceSlab::largest_free);

  py::class_<Token>(m, "Token", py::module_local()).def(py::init()).def("set", [](Token& token) {
    token.set = true;
  });
  m.def("schedule", &schedule, py::arg("target"), py::arg("draft"), py::arg("requests"),
        py::arg("max_requests"));
  py::class_<Session>(m, "Session", py::module_local())
      .def(py::init(&make_session), py::arg("target"), py::arg("draft") = py::none())
      .def("generate", &generate)
      .def("fork", &Session::fork)
      .def("save", [](Session& s, const std::string& path) { s.save(path); })
      .def("load", [](Session& s, const std::string& path) { s.load(path); })
      .def("reset", &Session::reset)
      .def("cached_tokens", &Session::cached_tokens)
      .def_property_readonly("memory_bytes", &Session::memory_bytes)
      .def_property_readonly("n_ctx", &Session::n_ctx)
      .def_property_readonly("busy", &Session::busy)
      .def_property_readonly("drafters", [](const Session& s) {
        std::vector<std::string> names;
        for (const DrafterOptions& drafter : s.options().drafters)
          names.emplace_back(drafter_name(drafter));
        return names;
      });
  m.def("drafter_names", &drafter_names);
  m.def("verifier_names", &verifier_names);

  m.def("measure_read_bandwidth", &measure_read_bandwidth,
        py::call_guard<py::gil_scoped_release>());
  m.def("available_memory_bytes", &available_memory_bytes);
  m.def("last_level_cache_bytes", &last_level_cache_bytes, py::arg("root") = "");
  m.def("second_level_cache_bytes", &second_level_cache_bytes, py::arg("root") = "");
  m.def(
      "read_cpu_ticks",
      [](const std::string& root) -> py::object {
        const auto ticks = read_cpu_ticks(root);
        if (!ticks) return py::none();
        return py::make_tuple(ticks->total, ticks->stolen);
      },
      py::arg("root") = "");
  m.def("relative_spread", &relative_spread);
  m.def("speed_line",
        [](const Handle& model, double bandwidth, int plain_steps, int rounds,
           const std::vector<std::int64_t>& drafted, const std::vector<std::int64_t>& accepted) {
          DecodeStats s;
          s.plain_steps = plain_steps;
          s.rounds = rounds;
          s.drafted_per_position = drafted;
          s.accepted_per_position = accepted;
          for (const auto n : drafted) s.drafted += n;
          for (const auto n : accepted) s.accepted += n;
          s.emitted = s.accepted + s.rounds + s.plain_steps;
          s.decode_ms = 1000;
          s.draft_ms = 250;
          s.verify_ms = 500;
          s.sample_ms = 100;
          if (rounds > 0) s.speculation = "on";
          return speed_line(s, model.model->info(), bandwidth);
        });
  m.def("perplexity", [](const Handle& model, const std::string& text, int n_ctx, int n_chunks) {
    TextPerplexityOptions options;
    options.n_ctx = n_ctx;
    options.n_chunks = n_chunks;
    const py::gil_scoped_release release;
    const TextPerplexity r = measure_text_perplexity(*model.model, text, options);
    return std::tuple(r.perplexity, r.mean_nll, r.n_tokens_scored, r.n_chunks);
  });
}
