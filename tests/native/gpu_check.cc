// What tools/check_gpu.py measures with: single operations, and models on the first GPU or on the
// emulated device, with the device's own counters beside the statistics of requests.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>

#include "base/error.h"
#include "emulated_device.h"
#include "engine/bench.h"
#include "engine/loaded_model.h"
#include "engine/session.h"
#include "kernel_timer.h"

namespace py = pybind11;
using namespace specdec;
using testing::CacheShape;
using testing::KernelTimer;
using testing::MatrixShape;
using testing::Repeats;
using testing::TimedLaunches;

namespace {

struct Gpu {
  std::shared_ptr<DeviceBackend> backend;
};
struct Loaded {
  std::shared_ptr<const LoadedModel> model;
};

py::dict info_dict(const DeviceInfo& info) {
  py::dict d;
  d["name"] = info.name;
  d["architecture"] = info.architecture;
  d["processors"] = info.n_processors;
  d["total_bytes"] = info.total_bytes;
  d["free_bytes"] = info.free_bytes;
  d["cache_bytes"] = info.cache_bytes;
  d["nominal_bytes_per_second"] = info.copy_bytes_per_second;
  return d;
}

MatrixShape matrix(std::uint32_t dtype, std::int64_t n_out, std::int64_t n_in, int n_copies) {
  if (find_dtype(dtype) == nullptr) throw_invalid("unknown type " + std::to_string(dtype));
  return {static_cast<DType>(dtype), n_out, n_in, n_copies};
}

CacheShape cache(const std::string& type, int n_heads, int n_kv_heads, int head_dim,
                 int n_positions, int n_layers) {
  return {parse_kv_type(type), n_heads, n_kv_heads, head_dim, n_positions, n_layers};
}

Gpu open_gpu(const std::string& device, std::size_t n_bytes) {
  if (device == "emulated") return {testing::make_emulated_device(n_bytes)};
  return {make_cuda_backend(0)};
}

py::dict counters(const Gpu& gpu) {
  const DeviceStats stats = gpu.backend->device_stats();
  py::dict d;
  d["passes"] = stats.n_passes;
  d["replayed"] = stats.n_replayed;
  d["waits"] = stats.n_waits;
  d["device_ms"] = stats.device_ms;
  d["reserved_bytes"] = gpu.backend->reserved_bytes();
  return d;
}

Loaded load(const std::string& path, const Gpu& gpu, int n_ctx, std::uint64_t vram_budget,
            int n_threads) {
  ModelOptions options;
  options.device = "cuda";
  options.gpu = gpu.backend;
  options.n_ctx = n_ctx;
  options.vram_budget = vram_budget;
  options.n_threads = n_threads;
  const py::gil_scoped_release release;
  return {LoadedModel::load(path, options)};
}

py::dict model_info(const Loaded& loaded) {
  const ModelInfo& info = loaded.model->info();
  py::dict d;
  d["quantisation"] = info.quantisation;
  d["n_layers"] = info.n_layers;
  d["n_gpu_layers"] = info.n_gpu_layers;
  d["weight_bytes"] = info.weight_bytes;
  d["bytes_per_step"] = info.bytes_per_step;
  d["gpu_bytes"] = info.gpu_bytes;
  d["placement"] = info.placement;
  d["load_ms"] = info.load_ms;
  return d;
}

py::dict bench(const Loaded& loaded, const std::vector<int>& rows, int n_ctx, int n_rounds) {
  BenchOptions options;
  options.rows = rows;
  options.n_ctx = n_ctx;
  options.n_rounds = n_rounds;
  BenchResult result;
  {
    const py::gil_scoped_release release;
    result = bench_forward(*loaded.model, options);
  }
  py::dict d;
  d["times_ms"] = result.times_ms;
  d["device_ms"] = result.device_ms;
  return d;
}

// A session's options, and one request; statistics by name.
py::dict generate(Session& session, const std::string& prompt, int max_tokens) {
  GenerateRequest request;
  request.prompt = prompt;
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  GenerateResult result;
  {
    const py::gil_scoped_release release;
    session.reset();
    result = session.generate(request);
  }
  const DecodeStats& s = result.stats;
  py::dict d;
  d["text"] = py::bytes(result.text);
  d["token_ids"] = result.token_ids;
  d["prompt_tokens"] = result.n_prompt_tokens;
  d["rounds"] = s.rounds;
  d["plain_steps"] = s.plain_steps;
  d["drafted"] = s.drafted;
  d["accepted"] = s.accepted;
  d["tokens_per_second"] = s.tokens_per_second();
  d["prompt_ms"] = s.prompt_ms;
  d["decode_ms"] = s.decode_ms;
  d["draft_ms"] = s.draft_ms;
  d["verify_ms"] = s.verify_ms;
  d["device_ms"] = s.device_ms;
  d["speculation"] = s.speculation;
  return d;
}

std::unique_ptr<Session> make_session(const Loaded& target, const Loaded* draft,
                                      const std::string& drafter, int n_ctx) {
  SessionOptions options;
  options.drafters = parse_drafters(drafter, draft != nullptr);
  options.adaptive = drafter == "auto";
  options.n_ctx = n_ctx;
  if (draft != nullptr) options.draft = draft->model;
  return std::make_unique<Session>(target.model, options);
}

void bind_timer(py::module_& m) {
  py::class_<TimedLaunches>(m, "TimedLaunches", py::module_local())
      .def_readonly("ms", &TimedLaunches::ms)
      .def_readonly("device_clock", &TimedLaunches::device_clock);
  py::class_<Repeats>(m, "Repeats", py::module_local())
      .def(py::init<int, int>(), py::arg("n_launches"), py::arg("n_repeats"));
  py::class_<MatrixShape>(m, "Matrix", py::module_local())
      .def(py::init(&matrix), py::arg("dtype"), py::arg("n_out"), py::arg("n_in"),
           py::arg("n_copies"));
  py::class_<CacheShape>(m, "Cache", py::module_local())
      .def(py::init(&cache), py::arg("type"), py::arg("n_heads"), py::arg("n_kv_heads"),
           py::arg("head_dim"), py::arg("n_positions"), py::arg("n_layers"));
  const py::call_guard<py::gil_scoped_release> release;
  py::class_<KernelTimer>(m, "KernelTimer", py::module_local())
      .def(py::init<const std::string&, std::size_t>(), py::arg("device"), py::arg("pool_bytes"))
      .def_property_readonly("info", [](const KernelTimer& t) { return info_dict(t.info()); })
      .def("copy", &KernelTimer::copy, py::arg("n_bytes"), py::arg("repeats"), release)
      .def("nothing", &KernelTimer::nothing, py::arg("repeats"), release)
      .def(
          "pack_input",
          [](KernelTimer& t, const std::vector<std::uint32_t>& dtypes, std::int64_t n_in,
             int n_rows, bool norm, const Repeats& repeats) {
            std::vector<DType> types;
            for (const std::uint32_t dtype : dtypes) types.push_back(static_cast<DType>(dtype));
            return t.pack_input(types, n_in, n_rows, norm, repeats);
          },
          py::arg("dtypes"), py::arg("n_in"), py::arg("n_rows"), py::arg("norm"),
          py::arg("repeats"))
      .def("linear", &KernelTimer::linear, py::arg("matrix"), py::arg("n_rows"),
           py::arg("use_dp4a"), py::arg("repeats"), release)
      .def("gated", &KernelTimer::gated, py::arg("matrix"), py::arg("n_rows"), py::arg("repeats"),
           release)
      .def("head", &KernelTimer::head, py::arg("matrix"), py::arg("n_rows"), py::arg("top_k"),
           py::arg("repeats"), release)
      .def("rope_store", &KernelTimer::rope_store, py::arg("cache"), py::arg("n_rows"),
           py::arg("repeats"), release)
      .def("attention", &KernelTimer::attention, py::arg("cache"), py::arg("n_rows"),
           py::arg("tree"), py::arg("repeats"), release);
  m.def("packed_bytes", [](std::uint32_t dtype, std::int64_t n_out, std::int64_t n_in) {
    return cuda::packed_bytes(matrix(dtype, n_out, n_in, 1).dtype, n_out, n_in);
  });
  m.def("layer_bytes", [](const std::string& type, int n_kv_heads, int head_dim) {
    return KvLayout{parse_kv_type(type), n_kv_heads, head_dim}.layer_bytes();
  });
}

}  // namespace

PYBIND11_MODULE(_testing_gpu_check, m) {
  m.def("formats", [] {
    py::dict d;
    for (const DTypeTraits& traits : all_dtypes())
      d[py::str(traits.name)] = static_cast<std::uint32_t>(traits.dtype);
    return d;
  });
  m.def("cuda_devices", [] {
    std::string reason;
    py::list devices;
    for (const DeviceInfo& device : cuda_devices(&reason)) devices.append(info_dict(device));
    return py::make_tuple(devices, reason, cuda_build_version());
  });
  bind_timer(m);

  py::class_<Gpu>(m, "Gpu", py::module_local())
      .def(py::init(&open_gpu), py::arg("device"), py::arg("n_bytes") = 0)
      .def_property_readonly("info",
                             [](const Gpu& g) { return info_dict(g.backend->device_info()); })
      .def_property_readonly("counters", &counters)
      .def(
          "measure_bandwidth", [](const Gpu& g) { return g.backend->measure_bandwidth(); },
          py::call_guard<py::gil_scoped_release>());
  py::class_<Loaded>(m, "Model", py::module_local())
      .def(py::init(&load), py::arg("path"), py::arg("gpu"), py::kw_only(), py::arg("n_ctx") = 0,
           py::arg("vram_budget") = 0, py::arg("n_threads") = 0)
      .def_property_readonly("info", &model_info)
      .def("bench", &bench, py::arg("rows"), py::arg("n_ctx"), py::arg("n_rounds"));
  py::class_<Session>(m, "Session", py::module_local())
      .def(py::init(&make_session), py::arg("target"), py::arg("draft"), py::arg("drafter"),
           py::arg("n_ctx"))
      .def("generate", &generate, py::arg("prompt"), py::arg("max_tokens"));
}
