// Test access to models: forward passes with the CPU backend or with the reference one.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "base/cpu_isa.h"
#include "base/thread_pool.h"
#include "emulated_device.h"
#include "error_code.h"
#include "model/perplexity.h"
#include "model/runner.h"
#include "reference_backend.h"

namespace py = pybind11;
using namespace specdec;

namespace {

// "emulated" and "cuda": the CPU for layers that are not on the device.
std::shared_ptr<DeviceBackend> make_device(const std::string& name) {
  if (name == "emulated") return testing::make_emulated_device(std::size_t{1} << 30);
  if (name == "cuda") return make_cuda_backend(0);
  return nullptr;
}

std::shared_ptr<Backend> make_backend(const std::string& name, int n_threads) {
  if (name == "emulated" || name == "cuda") return make_cpu_backend(n_threads);
  if (name == "reference") return std::make_shared<testing::ReferenceBackend>();
  if (name == "cpu") return make_cpu_backend(n_threads);
  if (name == "cpu, not repacked") return make_cpu_backend(n_threads, Repack::kOff);
  for (const CpuIsa isa : supported_cpu_isas()) {
    if (name == cpu_isa_name(isa)) return make_cpu_backend(n_threads, isa);
  }
  throw py::value_error("unknown backend " + name);
}

KvType kv_type_named(const std::string& name) {
  if (name == "f32") return KvType::kF32;
  if (name == "f16") return KvType::kF16;
  if (name == "q8_0") return KvType::kQ8_0;
  throw py::value_error("unknown cache type " + name);
}

RowOutput output_named(const std::string& name) {
  if (name == "none") return RowOutput::kNone;
  if (name == "hidden") return RowOutput::kHidden;
  if (name == "argmax") return RowOutput::kArgmax;
  if (name == "logits") return RowOutput::kLogits;
  if (name == "top") return RowOutput::kTop;
  throw py::value_error("unknown output " + name);
}

py::dict config_dict(const ModelConfig& c) {
  py::dict d;
  d["architecture"] = c.architecture;
  d["name"] = c.name;
  d["n_layers"] = c.n_layers;
  d["hidden_size"] = c.hidden_size;
  d["n_heads"] = c.n_heads;
  d["n_kv_heads"] = c.n_kv_heads;
  d["head_dim"] = c.head_dim;
  d["intermediate_size"] = c.intermediate_size;
  d["vocab_size"] = c.vocab_size;
  d["n_tokens"] = c.n_tokens;
  d["context_length"] = c.context_length;
  d["n_rot"] = c.ropes.at(0).n_rot;
  d["rope_theta"] = c.ropes.at(0).theta;
  d["rope_factor"] = c.ropes.at(0).factor;
  d["rope_magnitude"] = rope_frequencies(c.ropes.at(0)).magnitude;
  d["attention_scale"] = c.attention_scale;
  py::list windows;
  py::list ropes;
  py::list recurrent;
  py::list score_caps;
  for (const LayerSpec& layer : c.layers) {
    windows.append(layer.window);
    ropes.append(layer.rope);
    recurrent.append(layer.recurrent);
    score_caps.append(layer.score_cap);
  }
  d["windows"] = windows;
  d["ropes"] = ropes;
  d["recurrent"] = recurrent;
  d["score_caps"] = score_caps;
  d["logit_cap"] = c.logit_cap;
  d["parallel_residual"] = c.layers.at(0).parallel_residual;
  d["tied_head"] = c.tied_head;
  return d;
}

py::array_t<float> to_array(std::span<const float> values) {
  return py::array_t<float>(static_cast<py::ssize_t>(values.size()), values.data());
}

class Session {
 public:
  // The cache is poisoned with NaN where nothing was written.
  // lender: the target of a head, or null.
  Session(std::shared_ptr<const Model> model, int n_ctx, KvType type, std::size_t budget_bytes,
          std::shared_ptr<const Model> lender = nullptr)
      : model_(std::move(model)),
        lender_(std::move(lender)),
        cache_(KvArena::create(
                   {.budget_bytes = budget_bytes, .poison = true, .device = model_->device()}),
               model_->kv_shape(type), n_ctx),
        runner_(*model_, lender_.get()) {}
  Session(std::shared_ptr<const Model> model, KvCache cache)
      : model_(std::move(model)), cache_(std::move(cache)), runner_(*model_) {}

  // Rows of what was asked for, from first_output_row on.
  py::object forward(const std::vector<TokenId>& tokens, const std::vector<std::int32_t>& parents,
                     int first_output_row, const std::string& output, std::pair<int, int> layers,
                     const std::vector<float>& hidden, bool cancelled, int top_k,
                     const std::vector<std::int32_t>& head_blocks, int n_present,
                     const std::vector<std::int32_t>& taps, bool keep_hidden) {
    const RowOutput kind = output_named(output);
    const std::atomic<bool> cancel{cancelled};
    {
      const py::gil_scoped_release release;
      runner_.forward({.tokens = tokens,
                       .parents = parents,
                       .first_output_row = first_output_row,
                       .output = kind,
                       .top_k = top_k,
                       .head_blocks = head_blocks,
                       .layers = {layers.first, layers.second},
                       .hidden = hidden,
                       .n_present = n_present,
                       .keep_hidden = keep_hidden,
                       .taps = taps},
                      cache_, &cancel);
    }
    return results(kind, first_output_row, static_cast<int>(tokens.size()));
  }
  py::object results(RowOutput kind, int first_row, int n_rows) const {
    if (kind == RowOutput::kNone) return py::none();
    if (kind == RowOutput::kTop) return top_results(kind, first_row, n_rows);
    py::list rows;
    for (int r = first_row; r < n_rows; ++r) {
      if (kind == RowOutput::kLogits) rows.append(to_array(runner_.results().logits(r)));
      if (kind == RowOutput::kHidden) rows.append(to_array(runner_.results().hidden(r)));
      if (kind == RowOutput::kArgmax) rows.append(runner_.results().argmax(r));
    }
    return py::module_::import("numpy").attr("array")(rows);
  }
  // Rows of several sessions in one pass of this one's runner, as (session, tokens, parents,
  // silent): the logits of those that are not silent, and their best tokens with the sums where
  // top_k > 0.
  using Part = std::tuple<Session*, std::vector<TokenId>, std::vector<std::int32_t>, bool>;
  py::list forward_parts(const std::vector<Part>& parts, int top_k,
                         const std::vector<std::int32_t>& taps) {
    std::vector<BatchPart> list;
    for (const auto& [session, tokens, parents, silent] : parts) {
      list.push_back(
          {.tokens = tokens, .parents = parents, .cache = &session->cache_, .silent = silent});
    }
    runner_.forward_parts({.parts = list,
                           .output = top_k > 0 ? RowOutput::kTop : RowOutput::kLogits,
                           .top_k = std::max(top_k, 1),
                           .keep_logits = top_k > 0,
                           .taps = taps});
    py::list found;
    int row = 0;
    for (const BatchPart& part : list) {
      const int n_rows = static_cast<int>(part.tokens.size());
      for (int r = row; r < row + n_rows && !part.silent; ++r) {
        py::object top = py::none();
        if (top_k > 0) top = py::list(top_results(RowOutput::kTop, r, r + 1))[0];
        found.append(py::make_tuple(to_array(runner_.results().logits(r)), top));
      }
      row += n_rows;
    }
    return found;
  }
  // What forward() gives for the last row of each step of "top", or its argmax.
  py::list forward_steps(const std::vector<TokenId>& tokens, int n_steps, const std::string& output,
                         bool cancelled, int top_k, const std::vector<std::int32_t>& head_blocks) {
    const RowOutput kind = output_named(output);
    const std::atomic<bool> cancel{cancelled};
    const int last_row = static_cast<int>(tokens.size()) - 1;
    int n_done = 0;
    {
      const py::gil_scoped_release release;
      n_done = runner_.forward_steps({.tokens = tokens,
                                      .first_output_row = last_row,
                                      .output = kind,
                                      .top_k = top_k,
                                      .head_blocks = head_blocks},
                                     n_steps, cache_, &cancel);
    }
    return top_results(kind, last_row, last_row + n_done);
  }
  py::list top_results(RowOutput kind, int first_row, int n_rows) const {
    py::list rows;
    for (int r = first_row; r < n_rows; ++r) {
      if (kind == RowOutput::kArgmax) {
        rows.append(runner_.results().argmax(r));
        continue;
      }
      py::list best;
      for (const TopToken& t : runner_.results().top(r))
        best.append(py::make_tuple(t.token, t.logit));
      rows.append(py::make_tuple(best, runner_.results().log_sum_exp(r)));
    }
    return rows;
  }
  // Steps of `draft` as by its forward_steps(), and a pass of this model behind them, of which
  // n_used rows are kept (one where there are fewer steps). Returns the results of the steps, those
  // of the pass (None: there was none), and the error of the steps or None.
  py::tuple forward_behind(Session& draft, const std::vector<TokenId>& draft_tokens, int n_steps,
                           const std::vector<TokenId>& tokens,
                           const std::vector<std::int32_t>& picks,
                           const std::vector<std::int32_t>& parents, int n_used, int draft_top_k,
                           const std::string& output, int top_k, bool cancelled,
                           const std::vector<std::int32_t>& head_blocks) {
    const RowOutput kind = output_named(output);
    const std::atomic<bool> cancel{cancelled};
    const int last_row = static_cast<int>(draft_tokens.size()) - 1;
    Steps steps{.batch = {.tokens = draft_tokens,
                          .first_output_row = last_row,
                          .output = RowOutput::kTop,
                          .top_k = draft_top_k,
                          .head_blocks = head_blocks},
                .n_steps = n_steps};
    int n_rows = 0;
    bool done = false;
    {
      const py::gil_scoped_release release;
      runner_.issue(draft.runner_, draft.cache_, steps,
                    {.tokens = tokens, .parents = parents, .output = kind, .top_k = top_k}, picks,
                    cache_, &cancel);
      done = runner_.finish();
      n_rows = steps.n_done < n_steps ? 1 : n_used;
      if (done && n_used >= 0) runner_.keep(n_rows);
    }
    py::object error = py::none();
    try {
      if (steps.error) std::rethrow_exception(steps.error);
    } catch (const Error& e) {
      error = py::str(e.what());
    }
    if (done && (steps.share <= 0 || steps.share >= 1))
      throw py::value_error("a share of " + std::to_string(steps.share));
    return py::make_tuple(draft.top_results(RowOutput::kTop, last_row, last_row + steps.n_done),
                          done && n_used >= 0 ? results(kind, 0, n_rows) : py::object(py::none()),
                          error);
  }

  [[nodiscard]] py::array_t<float> hidden(int row) const {
    return to_array(runner_.results().hidden(row));
  }
  // Of a head: [n_rows, tap_size] to [n_rows, hidden_size], both flat.
  py::array_t<float> fuse(const std::vector<float>& taps) {
    const auto n_rows = static_cast<int>(
        taps.size() / static_cast<std::size_t>(model_->config().draft_head.tap_size()));
    std::vector<float> features(static_cast<std::size_t>(n_rows) *
                                static_cast<std::size_t>(model_->config().hidden_size));
    runner_.fuse(taps, n_rows, features);
    return to_array(features);
  }
  // [n_taps * hidden_size] of a row.
  [[nodiscard]] py::array_t<float> taps(int row) const {
    return to_array(runner_.results().taps(row));
  }
  [[nodiscard]] TokenId argmax(int row) const { return runner_.results().argmax(row); }
  [[nodiscard]] py::array_t<float> logits(int row) const {
    return to_array(runner_.results().logits(row));
  }
  [[nodiscard]] int length() const { return cache_.length(); }
  [[nodiscard]] std::pair<int, double> reading() const {
    const Reading reading = runner_.results().reading();
    return {reading.n_rows, reading.weights};
  }
  [[nodiscard]] std::size_t scratch_bytes() const { return runner_.n_bytes(); }
  void truncate(int n) { cache_.truncate(n); }
  [[nodiscard]] int reachable(int n) const { return cache_.reachable(n); }
  [[nodiscard]] std::size_t cache_bytes() const { return cache_.n_bytes(); }
  void keep_path(int base, const std::vector<std::int32_t>& rows) { cache_.keep_path(base, rows); }
  [[nodiscard]] std::unique_ptr<Session> fork() const {
    return std::make_unique<Session>(model_, cache_.fork());
  }

  py::dict perplexity(const std::vector<TokenId>& tokens, int n_ctx, int max_windows, TokenId bos) {
    PerplexityResult result;
    int n_reports = 0;
    {
      const py::gil_scoped_release release;
      PerplexityOptions options{.n_ctx = n_ctx, .max_windows = max_windows, .bos = bos};
      options.on_progress = [&](const PerplexityProgress&) { ++n_reports; };
      result = measure_perplexity(runner_, cache_, tokens, options);
    }
    py::dict d;
    d["perplexity"] = result.perplexity;
    d["mean_nll"] = result.mean_nll;
    d["standard_error"] = result.standard_error;
    d["n_scored"] = result.n_scored;
    d["n_windows"] = result.n_windows;
    d["n_reports"] = n_reports;
    return d;
  }

 private:
  std::shared_ptr<const Model> model_, lender_;
  KvCache cache_;
  Runner runner_;
};

class TestModel {
 public:
  TestModel(const std::string& path, const std::string& backend, int n_threads, bool check_tensors,
            int stop_after, int n_device_layers, bool device_embedding, const TestModel* beside,
            std::size_t max_expert_bytes, bool next_tokens) {
    const py::gil_scoped_release release;
    LoadOptions options{
        .part = next_tokens ? FilePart::kNextTokens : FilePart::kModel,
        .device = beside != nullptr ? beside->model_->device() : make_device(backend),
        .n_device_layers = n_device_layers,
        .n_device_ctx = 4096,
        .device_embedding = device_embedding,
        .device_kv_type = KvType::kF32,
        .max_expert_bytes = max_expert_bytes,
        .check_tensors = check_tensors};
    options.on_progress = [&](const LoadProgress& progress) {
      progress_.emplace_back(progress.n_bytes_done, progress.n_bytes_total);
      return stop_after < 0 || static_cast<int>(progress_.size()) <= stop_after;
    };
    model_ = Model::load(path, make_backend(backend, n_threads), options);
  }
  [[nodiscard]] const Model& model() const { return *model_; }
  [[nodiscard]] const std::vector<std::pair<std::uint64_t, std::uint64_t>>& progress() const {
    return progress_;
  }
  [[nodiscard]] std::unique_ptr<Session> session(int n_ctx, const std::string& kv_type,
                                                 std::size_t budget_bytes) const {
    return std::make_unique<Session>(model_, n_ctx, kv_type_named(kv_type), budget_bytes);
  }
  // As the head of a target.
  [[nodiscard]] std::unique_ptr<Session> head_session(const TestModel& target, int n_ctx,
                                                      const std::string& kv_type) const {
    return std::make_unique<Session>(model_, n_ctx, kv_type_named(kv_type), 0, target.model_);
  }

 private:
  std::shared_ptr<const Model> model_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> progress_;
};

}  // namespace

PYBIND11_MODULE(_testing_model, module) {
  module.def("limit_threads", [](int n) { ThreadPool::shared().set_limit(n); });
  module.attr("MAX_BATCH_ROWS") = kMaxBatchRows;
  module.def("emulated_launches", &testing::emulated_launches);
  // NativeError(code, reason, key, tensor, message)
  static py::object error_type =
      py::module_::import("builtins")
          .attr("type")("NativeError",
                        py::make_tuple(py::module_::import("builtins").attr("Exception")),
                        py::dict());
  module.attr("NativeError") = error_type;
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      const ErrorDetail& detail = error.detail();
      const py::object args =
          py::make_tuple(testing::code_name(error.code()), detail.reason, printable(detail.key),
                         printable(detail.tensor), error.what());
      PyErr_SetObject(error_type.ptr(), args.ptr());
    }
  });

  py::class_<Session>(module, "Session", py::module_local())
      .def("forward", &Session::forward, py::arg("tokens"),
           py::arg("parents") = std::vector<std::int32_t>{}, py::arg("first_output_row") = 0,
           py::arg("output") = "logits", py::arg("layers") = std::pair<int, int>{0, -1},
           py::arg("hidden") = std::vector<float>{}, py::arg("cancelled") = false,
           py::arg("top_k") = 1, py::arg("head_blocks") = std::vector<std::int32_t>{},
           py::arg("n_present") = 0, py::arg("taps") = std::vector<std::int32_t>(),
           py::arg("keep_hidden") = false)
      .def("forward_parts", &Session::forward_parts, py::arg("parts"), py::arg("top_k") = 0,
           py::arg("taps") = std::vector<std::int32_t>())
      .def("taps", &Session::taps)
      .def("hidden", &Session::hidden)
      .def("fuse", &Session::fuse, py::arg("taps"))
      .def("forward_steps", &Session::forward_steps, py::arg("tokens"), py::arg("n_steps"),
           py::arg("output") = "top", py::arg("cancelled") = false, py::arg("top_k") = 1,
           py::arg("head_blocks") = std::vector<std::int32_t>{})
      .def("forward_behind", &Session::forward_behind, py::arg("draft"), py::arg("draft_tokens"),
           py::arg("n_steps"), py::arg("tokens"), py::arg("picks"),
           py::arg("parents") = std::vector<std::int32_t>{}, py::arg("n_used"),
           py::arg("draft_top_k") = 1, py::arg("output") = "logits", py::arg("top_k") = 1,
           py::arg("cancelled") = false, py::arg("head_blocks") = std::vector<std::int32_t>{})
      .def("argmax", &Session::argmax)
      .def("logits", &Session::logits)
      .def("truncate", &Session::truncate)
      .def("reachable", &Session::reachable)
      .def_property_readonly("cache_bytes", &Session::cache_bytes)
      .def("keep_path", &Session::keep_path)
      .def("fork", &Session::fork)
      .def("perplexity", &Session::perplexity, py::arg("tokens"), py::arg("n_ctx"),
           py::arg("max_windows") = 0, py::arg("bos") = -1)
      .def_property_readonly("scratch_bytes", &Session::scratch_bytes)
      .def_property_readonly("reading", &Session::reading)
      .def_property_readonly("length", &Session::length);

  py::class_<TestModel>(module, "Model", py::module_local())
      .def(py::init<const std::string&, const std::string&, int, bool, int, int, bool,
                    const TestModel*, std::size_t, bool>(),
           py::arg("path"), py::arg("backend") = "cpu", py::arg("n_threads") = 1,
           py::arg("check_tensors") = false, py::arg("stop_after") = -1,
           py::arg("n_device_layers") = 0, py::arg("device_embedding") = true,
           py::arg("beside") = py::none(),
           py::arg("max_expert_bytes") = std::numeric_limits<std::size_t>::max(),
           py::arg("next_tokens") = false)
      .def("head_session", &TestModel::head_session, py::arg("target"), py::arg("n_ctx") = 1024,
           py::arg("kv_type") = "f32")
      .def("session", &TestModel::session, py::arg("n_ctx") = 1024, py::arg("kv_type") = "f32",
           py::arg("budget_bytes") = 0)
      .def_property_readonly("state_bytes",
                             [](const TestModel& m) { return m.model().state_bytes(); })
      .def("kv_bytes_per_token",
           [](const TestModel& m, const std::string& type) {
             return m.model().kv_bytes_per_token(kv_type_named(type));
           })
      .def_property_readonly("config",
                             [](const TestModel& m) { return config_dict(m.model().config()); })
      .def_property_readonly("warnings", [](const TestModel& m) { return m.model().warnings(); })
      .def_property_readonly("progress", &TestModel::progress)
      .def_property_readonly(
          "backend", [](const TestModel& m) { return m.model().backend()->info().description; })
      .def_property_readonly("device_passes",
                             [](const TestModel& m) {
                               if (m.model().device() == nullptr) return std::pair{0L, 0L};
                               const DeviceStats s = m.model().device()->device_stats();
                               return std::pair{static_cast<long>(s.n_passes),
                                                static_cast<long>(s.n_replayed)};
                             })
      .def_property_readonly("device_waits",
                             [](const TestModel& m) {
                               return static_cast<long>(m.model().device()->device_stats().n_waits);
                             })
      .def_property_readonly("can_run_steps",
                             [](const TestModel& m) { return m.model().can_run_steps(); })
      .def_property_readonly("device_bytes",
                             [](const TestModel& m) { return m.model().memory().device_bytes; })
      .def_property_readonly("memory", [](const TestModel& m) {
        return std::pair{m.model().memory().weights_bytes, m.model().memory().mapped_bytes};
      });

  module.def("read_config", [](const std::string& path) {
    std::vector<std::string> warnings;
    const ModelConfig config = read_model_config(*GgufFile::open(path), &warnings);
    return std::pair{config_dict(config), warnings};
  });
  module.def("cpu_isas", [] {
    std::vector<std::string> names;
    for (const CpuIsa isa : supported_cpu_isas()) names.emplace_back(cpu_isa_name(isa));
    return names;
  });
  module.def("supported_architectures", &supported_architectures);
}
