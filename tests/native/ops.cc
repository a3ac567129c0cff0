// The small CPU operations one by one, for every instruction set, to tests.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "backend/cpu/ops.h"
#include "base/aligned_buffer.h"
#include "base/error.h"
#include "tensor/half.h"

namespace py = pybind11;

namespace {

using namespace specdec;
using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;
using Ints = py::array_t<std::int32_t, py::array::c_style | py::array::forcecast>;

const OpsKernels& kernels(const std::string& isa) { return ops_kernels(parse_cpu_isa(isa)); }

Activation parse_activation(const std::string& name) {
  if (name == "silu") return Activation::kSilu;
  if (name == "gelu_erf") return Activation::kGeluErf;
  if (name == "gelu_tanh") return Activation::kGeluTanh;
  if (name == "clamped_swiglu") return Activation::kClampedSwiglu;
  if (name == "none") return Activation::kNone;
  throw_invalid("unknown activation " + name);
}

KvType parse_type(const std::string& name) {
  if (name == "f32") return KvType::kF32;
  if (name == "f16") return KvType::kF16;
  if (name == "q8_0") return KvType::kQ8_0;
  throw_invalid("unknown type " + name);
}

Floats run_norm(const std::string& isa, const std::string& kind, const Floats& x,
                const Floats& weight, const std::optional<Floats>& bias, float epsilon) {
  Norm norm;
  norm.kind = kind == "rms" ? Norm::Kind::kRms : Norm::Kind::kLayer;
  norm.weight = weight.data();
  norm.bias = bias ? bias->data() : nullptr;
  norm.epsilon = epsilon;
  Floats out(x.size());
  kernels(isa).norm(norm, x.data(), x.size(), out.mutable_data());
  return out;
}

Floats run_activate(const std::string& isa, const std::string& activation, const Floats& x) {
  Floats out(x.size());
  std::memcpy(out.mutable_data(), x.data(), static_cast<std::size_t>(x.nbytes()));
  kernels(isa).activate(parse_activation(activation), out.mutable_data(), out.size());
  return out;
}

Floats run_activate_multiply(const std::string& isa, const std::string& activation,
                             const Floats& gate, const Floats& up) {
  Floats out(gate.size());
  kernels(isa).activate_multiply(parse_activation(activation), gate.data(), up.data(), gate.size(),
                                 out.mutable_data());
  return out;
}

Floats run_add(const std::string& isa, const Floats& x, const Floats& y) {
  Floats out(x.size());
  std::memcpy(out.mutable_data(), x.data(), static_cast<std::size_t>(x.nbytes()));
  kernels(isa).add(y.data(), y.size(), out.mutable_data());
  return out;
}

// One layer's cache with its own pages; every byte starts as 0xFF, a NaN in each type.
class Cache {
 public:
  Cache(const std::string& type, int n_kv_heads, int head_dim, int n_slots) {
    layout_ = {.type = parse_type(type), .n_kv_heads = n_kv_heads, .head_dim = head_dim};
    for (int slot = 0; slot < n_slots; slot += kKvChunk) {
      buffers_.emplace_back(layout_.layer_bytes());
      std::memset(buffers_.back().data(), 0xFF, layout_.layer_bytes());
      pages_.push_back(buffers_.back().data());
    }
    n_slots_ = n_slots;
  }

  // q [n_rows, n_heads, head_dim], k and v [n_rows, n_kv_heads, head_dim]; returns the rotated q.
  Floats rope_store(const std::string& isa, int n_threads, const Floats& q, const Floats& k,
                    const Floats& v, int first_slot, const std::optional<Floats>& cos_sin,
                    bool interleaved) {
    Floats rotated(std::vector<py::ssize_t>(q.shape(), q.shape() + q.ndim()));
    std::memcpy(rotated.mutable_data(), q.data(), static_cast<std::size_t>(q.nbytes()));
    RopeStoreTask task;
    task.n_rows = static_cast<int>(q.shape(0));
    task.n_heads = static_cast<int>(q.shape(1));
    task.n_kv_heads = layout_.n_kv_heads;
    task.head_dim = layout_.head_dim;
    task.n_rot = cos_sin ? static_cast<int>(cos_sin->shape(1)) : 0;
    task.interleaved = interleaved;
    task.cos_sin = cos_sin ? cos_sin->data() : nullptr;
    task.q = rotated.mutable_data();
    task.k = k.data();
    task.v = v.data();
    task.q_stride = task.n_heads * static_cast<std::int64_t>(task.head_dim);
    task.k_stride = task.v_stride = task.n_kv_heads * static_cast<std::int64_t>(task.head_dim);
    task.cache = view();
    task.first_slot = first_slot;
    check_rope_store(task);
    check_slots(first_slot, task.n_rows);
    const OpsKernels& ops = kernels(isa);
    ThreadPool::shared().run(n_threads,
                             [&](TaskContext& context) { ops.rope_store(task, context); });
    return rotated;
  }

  Floats attention(const std::string& isa, int n_threads, const Floats& q, int first_slot,
                   const std::optional<Ints>& parents, float scale, int window, float soft_cap,
                   const std::optional<Floats>& sinks) {
    Floats out(std::vector<py::ssize_t>(q.shape(), q.shape() + q.ndim()));
    AttentionTask task;
    task.n_rows = static_cast<int>(q.shape(0));
    task.n_heads = static_cast<int>(q.shape(1));
    task.n_kv_heads = layout_.n_kv_heads;
    task.head_dim = layout_.head_dim;
    task.scale = scale;
    task.q = q.data();
    task.out = out.mutable_data();
    task.q_stride = task.out_stride = task.n_heads * static_cast<std::int64_t>(task.head_dim);
    task.cache = view();
    task.first_slot = first_slot;
    task.parents = parents ? parents->data() : nullptr;
    task.window = window;
    task.soft_cap = soft_cap;
    task.sinks = sinks ? sinks->data() : nullptr;
    check_attention(task);
    check_slots(first_slot, task.n_rows);
    const OpsKernels& ops = kernels(isa);
    AlignedBuffer scratch(attention_scratch_bytes(task, n_threads));
    std::memset(scratch.data(), 0xFF, scratch.size());
    ThreadPool::shared().run(
        n_threads, [&](TaskContext& context) { ops.attention(task, scratch.data(), context); });
    return out;
  }

  // [n_slots, n_kv_heads, head_dim] as the kernels see it.
  [[nodiscard]] Floats keys() const { return read(true); }
  [[nodiscard]] Floats values() const { return read(false); }

  [[nodiscard]] py::bytes content() const {
    std::string out;
    for (const auto& buffer : buffers_)
      out.append(reinterpret_cast<const char*>(buffer.data()), buffer.size());
    return py::bytes(out);
  }

 private:
  [[nodiscard]] KvLayerView view() const { return {.layout = layout_, .pages = pages_.data()}; }
  void check_slots(int first, int n) const {
    if (first < 0 || n < 1 || first + n > n_slots_) throw_invalid("slots out of range");
  }

  [[nodiscard]] float element(const std::byte* base, std::size_t i, const std::byte* scales,
                              std::size_t scale) const {
    if (layout_.type == KvType::kF32) return reinterpret_cast<const float*>(base)[i];
    if (layout_.type == KvType::kF16)
      return f16_to_f32(reinterpret_cast<const std::uint16_t*>(base)[i]);
    return static_cast<float>(reinterpret_cast<const std::int8_t*>(base)[i]) *
           f16_to_f32(reinterpret_cast<const std::uint16_t*>(scales)[scale]);
  }

  [[nodiscard]] Floats read(bool keys) const {
    Floats out({n_slots_, layout_.n_kv_heads, layout_.head_dim});
    auto at = out.mutable_unchecked<3>();
    const auto dim = static_cast<std::size_t>(layout_.head_dim);
    for (int slot = 0; slot < n_slots_; ++slot) {
      const auto p = static_cast<std::size_t>(slot % kKvChunk);
      for (int h = 0; h < layout_.n_kv_heads; ++h) {
        const std::byte* head = pages_[static_cast<std::size_t>(slot / kKvChunk)] +
                                static_cast<std::size_t>(h) * layout_.head_bytes();
        for (std::size_t d = 0; d < dim; ++d) {
          const std::size_t n_scales = dim / 32;
          at(slot, h, static_cast<py::ssize_t>(d)) =
              keys ? element(head + layout_.k_offset(), (p / 16 * dim + d) * 16 + p % 16,
                             head + layout_.k_scales_offset(),
                             (p / 16 * n_scales + d / 32) * 16 + p % 16)
                   : element(head + layout_.v_offset(),
                             p * static_cast<std::size_t>(layout_.v_stride()) + d,
                             head + layout_.v_scales_offset(), p * n_scales + d / 32);
        }
      }
    }
    return out;
  }

  KvLayout layout_;
  std::vector<AlignedBuffer> buffers_;
  std::vector<std::byte*> pages_;
  int n_slots_ = 0;
};

}  // namespace

PYBIND11_MODULE(_testing_ops, m) {
  m.def("limit_threads", [](int n) { ThreadPool::shared().set_limit(n); });
  m.def("isas", [] {
    std::vector<std::string> out;
    for (const CpuIsa isa : supported_cpu_isas()) out.emplace_back(cpu_isa_name(isa));
    return out;
  });
  m.def("norm", &run_norm);
  m.def("activate", &run_activate);
  m.def("activate_multiply", &run_activate_multiply);
  m.def("add", &run_add);
  m.def("max", [](const std::string& isa, const Floats& x) {
    return kernels(isa).max(x.data(), x.size());
  });
  m.def("sum_exp", [](const std::string& isa, const Floats& x, float max) {
    return kernels(isa).sum_exp(x.data(), x.size(), max);
  });
  m.def("soft_cap", [](const std::string& isa, float cap, const Floats& x) {
    Floats out(std::vector<py::ssize_t>(x.shape(), x.shape() + x.ndim()));
    std::copy_n(x.data(), x.size(), out.mutable_data());
    kernels(isa).soft_cap(cap, out.mutable_data(), x.size());
    return out;
  });
  py::class_<Cache>(m, "Cache", py::module_local())
      .def(py::init<const std::string&, int, int, int>())
      .def("rope_store", &Cache::rope_store, py::arg("isa"), py::arg("n_threads"), py::arg("q"),
           py::arg("k"), py::arg("v"), py::arg("first_slot"), py::arg("cos_sin") = py::none(),
           py::arg("interleaved") = false)
      .def("attention", &Cache::attention, py::arg("isa"), py::arg("n_threads"), py::arg("q"),
           py::arg("first_slot"), py::arg("parents") = py::none(), py::arg("scale") = 1.0F,
           py::arg("window") = 0, py::arg("soft_cap") = 0.0F, py::arg("sinks") = py::none())
      .def("keys", &Cache::keys)
      .def("values", &Cache::values)
      .def("content", &Cache::content);
}
