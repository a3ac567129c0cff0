// Reaches the CPU matmul from pytest.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>
#include <cstring>
#include <stdexcept>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/packed_matrix.h"
#include "backend/cpu/wide/self_check.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "quant/codec.h"
#include "standin.h"

namespace py = pybind11;
using namespace specdec;
using FloatArray = py::array_t<float, py::array::c_style | py::array::forcecast>;

namespace {

std::span<const std::byte> as_bytes(const py::bytes& data) {
  const auto view = static_cast<std::string_view>(data);
  return {reinterpret_cast<const std::byte*>(view.data()), view.size()};
}

class Matmul {
 public:
  Matmul(const std::string& isa, int n_threads, bool repack)
      : backend_(make_test_backend(isa, n_threads, repack ? Repack::kAuto : Repack::kOff)) {}

  // y[m, n_out] = x[m, n_in] W^T
  FloatArray linear(std::uint32_t dtype, std::int64_t n_out, std::int64_t n_in,
                    const py::bytes& data, const FloatArray& x) {
    return product(*backend_->load_matrix(static_cast<DType>(dtype), n_out, n_in, as_bytes(data)),
                   x);
  }

  // What use_packed() takes.
  py::bytes pack(std::uint32_t dtype, std::int64_t n_out, std::int64_t n_in,
                 const py::bytes& data) {
    const auto weight =
        backend_->load_matrix(static_cast<DType>(dtype), n_out, n_in, as_bytes(data));
    const std::span<const std::byte> packed = weight->packed();
    if (!packed.empty() &&
        packed.size() != backend_->packed_bytes(static_cast<DType>(dtype), n_out, n_in))
      throw std::runtime_error("packed_bytes() says something else");
    return {reinterpret_cast<const char*>(packed.data()), packed.size()};
  }

  // As linear(), of what pack() gave.
  FloatArray linear_packed(std::uint32_t dtype, std::int64_t n_out, std::int64_t n_in,
                           const py::bytes& packed, const FloatArray& x) {
    const std::span<const std::byte> bytes = as_bytes(packed);
    const AlignedBuffer memory(bytes.size());
    std::memcpy(memory.data(), bytes.data(), bytes.size());
    return product(*backend_->use_packed(static_cast<DType>(dtype), n_out, n_in,
                                         {memory.data(), bytes.size()}),
                   x);
  }

  FloatArray product(const WeightMatrix& weight, const FloatArray& x) {
    const std::int64_t n_out = weight.n_out();
    const std::int64_t n_in = weight.n_in();
    const auto m = x.shape(0);
    FloatArray y({m, static_cast<py::ssize_t>(n_out)});
    LinearSegment segment;
    segment.weight = &weight;
    segment.dst = y.mutable_data();
    segment.dst_stride = n_out;
    LinearTask task;
    task.x = x.data();
    task.x_stride = n_in;
    task.n_rows = static_cast<int>(m);
    task.segments = {&segment, 1};
    backend_->linear(task);
    return y;
  }

  // silu(x[m, n_in] gate^T) * (x up^T), each of a format of its own.
  FloatArray gated(std::uint32_t gate_dtype, const py::bytes& gate_data, std::uint32_t up_dtype,
                   const py::bytes& up_data, std::int64_t n_out, const FloatArray& x) {
    const std::int64_t n_in = x.shape(1);
    const auto gate =
        backend_->load_matrix(static_cast<DType>(gate_dtype), n_out, n_in, as_bytes(gate_data));
    const auto up =
        backend_->load_matrix(static_cast<DType>(up_dtype), n_out, n_in, as_bytes(up_data));
    FloatArray y({x.shape(0), static_cast<py::ssize_t>(n_out)});
    GatedLinearTask task;
    task.x = x.data();
    task.x_stride = n_in;
    task.n_rows = static_cast<int>(x.shape(0));
    task.gate = gate.get();
    task.up = up.get();
    task.dst = y.mutable_data();
    task.dst_stride = n_out;
    backend_->gated_linear(task);
    return y;
  }

  // Milliseconds of each repetition of a product over n_copies distinct matrices, for every row
  // count.
  std::vector<std::vector<double>> time_linear(std::uint32_t dtype, std::int64_t n_out,
                                               std::int64_t n_in, const py::bytes& data,
                                               const std::vector<int>& rows, int n_copies,
                                               int n_rounds) {
    std::vector<std::unique_ptr<WeightMatrix>> weights;
    for (int i = 0; i < n_copies; ++i) {
      weights.push_back(
          backend_->load_matrix(static_cast<DType>(dtype), n_out, n_in, as_bytes(data)));
    }
    int max_rows = 1;
    for (const int m : rows) max_rows = std::max(max_rows, m);
    std::vector<float> x(static_cast<std::size_t>(max_rows * n_in), 0.5F);
    std::vector<float> y(static_cast<std::size_t>(max_rows * n_out));
    std::vector<std::vector<double>> out(rows.size());
    for (int round = 0; round < n_rounds; ++round) {
      for (std::size_t i = 0; i < rows.size(); ++i) {
        const auto start = std::chrono::steady_clock::now();
        for (const auto& weight : weights) {
          LinearSegment segment;
          segment.weight = weight.get();
          segment.dst = y.data();
          segment.dst_stride = n_out;
          LinearTask task;
          task.x = x.data();
          task.x_stride = n_in;
          task.n_rows = rows[i];
          task.segments = {&segment, 1};
          backend_->linear(task);
        }
        const std::chrono::duration<double, std::milli> elapsed =
            std::chrono::steady_clock::now() - start;
        out[i].push_back(elapsed.count());
      }
    }
    return out;
  }

  // Codes and scales of one quantised row: (q int8 [n], d float [blocks]).
  py::tuple quantize(int kind, const FloatArray& x, const std::string& isa) {
    const auto input_kind = static_cast<InputKind>(kind);
    const auto n = x.shape(0);
    AlignedBuffer memory(packed_input_bytes(input_kind, n, 1));
    const PackedInput input = packed_input_view(input_kind, n, 1, memory.data());
    matmul_kernels(parse_cpu_isa(isa)).quantize(input_kind)(x.data(), n, 0, input);
    const auto n_blocks = n / (input_kind == InputKind::kQ32 ? 32 : 256);
    return py::make_tuple(py::array_t<std::int8_t>(n, input.q),
                          py::array_t<float>(n_blocks, input.d));
  }

 private:
  std::shared_ptr<Backend> backend_;
};

}  // namespace

PYBIND11_MODULE(_testing_matmul, m) {
  py::class_<Matmul>(m, "Matmul", py::module_local())
      .def(py::init<const std::string&, int, bool>(), py::arg("isa"), py::arg("n_threads"),
           py::arg("repack") = true)
      .def("linear", &Matmul::linear)
      .def("gated", &Matmul::gated)
      .def("pack", &Matmul::pack)
      .def("linear_packed", &Matmul::linear_packed)
      .def("time_linear", &Matmul::time_linear)
      .def("quantize", &Matmul::quantize);
  m.def("tile_layout", [](const std::string& isa) { return tile_layout(parse_cpu_isa(isa)); });
  m.def("pair_rows", [](std::uint32_t dtype, const py::bytes& packed) {
    const TileFormat& format = tile_format(static_cast<DType>(dtype));
    std::string tiles = packed;
    for (std::size_t at = 0; at < tiles.size(); at += format.tile_bytes)
      format.pair_rows(reinterpret_cast<std::uint8_t*>(tiles.data() + at));
    return py::bytes(tiles);
  });
  // The one that takes its place where its products are wrong.
  m.def("working_isa", [](const std::string& isa) {
    return std::string(cpu_isa_name(working_cpu_isa(parse_cpu_isa(isa))));
  });
  m.def("isas", [] {
    std::vector<std::string> names;
    for (const CpuIsa isa : supported_cpu_isas()) names.emplace_back(cpu_isa_name(isa));
    return names;
  });
  m.def("standins", standin_names);
  m.def("self_check",
        [](const std::string& name) { return wide_kernels_agree(find_standin(name)->kernels); });
  m.def("checked_isa", [](const std::string& name) {
    const Standin& standin = *find_standin(name);
    std::string log;
    set_log_sink([&](LogLevel, const std::string& message) { log = message; });
    const CpuIsa isa = checked_cpu_isa(CpuIsa::kAmxInt8, standin.narrow, standin.kernels);
    set_log_sink({});
    return py::make_tuple(cpu_isa_name(isa), log);
  });
  m.def("break_standins", [](bool broken) { Standin::broken = broken; });
  m.def("n_configured", [] { return Standin::n_configured.load(); });
  m.def("n_configurations", [] { return Standin::n_configurations.load(); });
  m.def("wide_from", [](const std::string& standin, std::uint32_t dtype) {
    return find_standin(standin)->kernels.wide_from(static_cast<DType>(dtype));
  });
  m.attr("max_wide_columns") = kMaxWideColumns;
  m.def("dequantize", [](std::uint32_t dtype, const py::bytes& data, std::int64_t n) {
    FloatArray out(static_cast<py::ssize_t>(n));
    codec(static_cast<DType>(dtype)).dequantize(as_bytes(data).data(), out.mutable_data(), n);
    return out;
  });
}
