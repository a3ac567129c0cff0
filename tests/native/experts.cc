// Reaches the choice of experts and their networks from pytest, fused and composed.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/cpu_isa.h"
#include "reference_backend.h"
#include "standin.h"

namespace py = pybind11;
using namespace specdec;
using FloatArray = py::array_t<float, py::array::c_style | py::array::forcecast>;
using IntArray = py::array_t<std::int32_t, py::array::c_style | py::array::forcecast>;

namespace {

std::span<const std::byte> as_bytes(const py::bytes& data) {
  const auto view = static_cast<std::string_view>(data);
  return {reinterpret_cast<const std::byte*>(view.data()), view.size()};
}

// A layer's experts; `data` of a stack must live as long as this.
class Experts {
 public:
  // isa "reference": plain loops in double.
  Experts(const std::string& isa, int n_threads, std::uint32_t dtype, int n_experts,
          std::int64_t hidden, std::int64_t size, const py::bytes& gate, const py::bytes& up,
          const py::bytes& down, int n_mapped, const std::optional<FloatArray>& gate_bias,
          const std::optional<FloatArray>& up_bias, const std::optional<FloatArray>& down_bias)
      : hidden_(hidden), gate_bias_(gate_bias), up_bias_(up_bias), down_bias_(down_bias) {
    if (isa == "reference") {
      backend_ = std::make_shared<testing::ReferenceBackend>();
    } else {
      backend_ = make_test_backend(isa, n_threads);
    }
    const auto load = [&](std::int64_t n_out, std::int64_t n_in, std::span<const std::byte> data) {
      std::vector<std::unique_ptr<WeightMatrix>> matrices;
      const std::size_t n_bytes = data.size() / static_cast<std::size_t>(n_experts);
      for (int e = 0; e < n_experts; ++e) {
        const auto part = data.subspan(static_cast<std::size_t>(e) * n_bytes, n_bytes);
        const auto type = static_cast<DType>(dtype);
        matrices.push_back(e < n_mapped ? backend_->map_matrix(type, n_out, n_in, part)
                                        : backend_->load_matrix(type, n_out, n_in, part));
      }
      return matrices;
    };
    gate_ = load(size, hidden, as_bytes(gate));
    up_ = load(size, hidden, as_bytes(up));
    down_ = load(hidden, size, as_bytes(down));
  }

  FloatArray run(const FloatArray& x, const IntArray& chosen, const FloatArray& weights,
                 bool composed) {
    FloatArray y({x.shape(0), static_cast<py::ssize_t>(hidden_)});
    std::fill_n(y.mutable_data(), y.size(), 0.0F);
    const ExpertsTask task{
        .x = x.data(),
        .x_stride = hidden_,
        .n_rows = static_cast<int>(x.shape(0)),
        .n_used = static_cast<int>(chosen.shape(1)),
        .chosen = chosen.data(),
        .weights = weights.data(),
        .gate = gate_,
        .up = up_,
        .down = down_,
        .gate_bias = gate_bias_ ? gate_bias_->data() : nullptr,
        .up_bias = up_bias_ ? up_bias_->data() : nullptr,
        .down_bias = down_bias_ ? down_bias_->data() : nullptr,
        .activation = gate_bias_ ? Activation::kClampedSwiglu : Activation::kSilu,
        .dst = y.mutable_data(),
        .dst_stride = hidden_};
    composed ? backend_->Backend::experts(task) : backend_->experts(task);
    return y;
  }

  // Numbers and weights of the chosen of each row.
  py::tuple route(const FloatArray& x, const FloatArray& router, int n_used, bool of_chosen,
                  bool composed) {
    const auto n_experts = static_cast<std::int64_t>(router.shape(0));
    const auto n_bytes = static_cast<std::size_t>(router.nbytes());
    const auto matrix =
        backend_->load_matrix(DType::kF32, n_experts, hidden_,
                              {reinterpret_cast<const std::byte*>(router.data()), n_bytes});
    IntArray chosen({x.shape(0), static_cast<py::ssize_t>(n_used)});
    FloatArray weights({x.shape(0), static_cast<py::ssize_t>(n_used)});
    const RouteTask task{.x = x.data(),
                         .x_stride = hidden_,
                         .n_rows = static_cast<int>(x.shape(0)),
                         .router = matrix.get(),
                         .n_used = n_used,
                         .of_chosen = of_chosen,
                         .chosen = chosen.mutable_data(),
                         .weights = weights.mutable_data()};
    composed ? backend_->Backend::route(task) : backend_->route(task);
    return py::make_tuple(chosen, weights);
  }

  [[nodiscard]] int n_views() const {
    int n = 0;
    for (const auto* stack : {&gate_, &up_, &down_}) {
      for (const auto& matrix : *stack) n += matrix->is_view() ? 1 : 0;
    }
    return n;
  }

 private:
  std::int64_t hidden_;
  std::shared_ptr<Backend> backend_;
  std::optional<FloatArray> gate_bias_, up_bias_, down_bias_;
  std::vector<std::unique_ptr<WeightMatrix>> gate_, up_, down_;
};

}  // namespace

PYBIND11_MODULE(_testing_experts, module) {
  py::class_<Experts>(module, "Experts", py::module_local())
      .def(py::init<const std::string&, int, std::uint32_t, int, std::int64_t, std::int64_t,
                    const py::bytes&, const py::bytes&, const py::bytes&, int,
                    const std::optional<FloatArray>&, const std::optional<FloatArray>&,
                    const std::optional<FloatArray>&>(),
           py::arg("isa"), py::arg("n_threads"), py::arg("dtype"), py::arg("n_experts"),
           py::arg("hidden"), py::arg("size"), py::arg("gate"), py::arg("up"), py::arg("down"),
           py::arg("n_mapped") = 0, py::arg("gate_bias") = py::none(),
           py::arg("up_bias") = py::none(), py::arg("down_bias") = py::none(),
           py::keep_alive<1, 8>(), py::keep_alive<1, 9>(), py::keep_alive<1, 10>())
      .def("run", &Experts::run, py::arg("x"), py::arg("chosen"), py::arg("weights"),
           py::arg("composed") = false)
      .def("route", &Experts::route, py::arg("x"), py::arg("router"), py::arg("n_used"),
           py::arg("of_chosen") = true, py::arg("composed") = false)
      .def_property_readonly("n_views", &Experts::n_views);
  module.def("standins", standin_names);
  module.def("isas", [] {
    std::vector<std::string> names;
    for (const CpuIsa isa : supported_cpu_isas()) names.emplace_back(cpu_isa_name(isa));
    return names;
  });
}
