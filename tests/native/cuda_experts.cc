// The kernels of mixtures of experts to tests, run by the emulator or on a GPU.
#include "cuda_experts.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <string_view>
#include <vector>

#include "kernel_device.h"

namespace py = pybind11;

namespace specdec::testing {
namespace {

using namespace specdec::cuda;
using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;
using Ints = py::array_t<std::int32_t, py::array::c_style | py::array::forcecast>;

struct Uploaded : DeviceBuffer {
  explicit Uploaded(const py::array& array)
      : DeviceBuffer(static_cast<std::size_t>(array.nbytes())) {
    upload(array.data());
  }
};

py::tuple choose(const Floats& logits, int n_used, bool of_chosen) {
  const py::ssize_t n_rows = logits.shape(0);
  Ints chosen({n_rows, static_cast<py::ssize_t>(n_used)});
  Floats weights({n_rows, static_cast<py::ssize_t>(n_used)});
  const Uploaded in(logits);
  const DeviceBuffer d_chosen(static_cast<std::size_t>(chosen.nbytes()));
  const DeviceBuffer d_weights(static_cast<std::size_t>(weights.nbytes()));
  run_kernels(device_kernels().choose, ChooseArgs{.logits = in.as<float>(),
                                                  .stride = logits.shape(1),
                                                  .n_rows = static_cast<int>(n_rows),
                                                  .n_experts = static_cast<int>(logits.shape(1)),
                                                  .n_used = n_used,
                                                  .of_chosen = of_chosen,
                                                  .chosen = d_chosen.as<std::int32_t>(),
                                                  .weights = d_weights.as<float>()});
  d_chosen.download(chosen.mutable_data());
  d_weights.download(weights.mutable_data());
  return py::make_tuple(chosen, weights);
}

// Rows sorted by the experts they have chosen.
struct Slots {
  Slots(const Ints& chosen, int n_experts)
      : n_pairs(static_cast<int>(chosen.size())),
        n(expert_slots(n_pairs, n_experts)),
        in(chosen),
        experts(static_cast<std::size_t>(n) / 8 * 4),
        rows(static_cast<std::size_t>(n) * 4),
        slots(static_cast<std::size_t>(n) * 4),
        slot_of(static_cast<std::size_t>(n_pairs) * 4) {
    run_kernels(device_kernels().group, GroupArgs{.chosen = in.as<std::int32_t>(),
                                                  .n_pairs = n_pairs,
                                                  .n_used = static_cast<int>(chosen.shape(1)),
                                                  .n_experts = n_experts,
                                                  .n_slots = n,
                                                  .experts = experts.as<std::int32_t>(),
                                                  .rows = rows.as<std::int32_t>(),
                                                  .slots = slots.as<std::int32_t>(),
                                                  .slot_of = slot_of.as<std::int32_t>()});
  }
  int n_pairs, n;
  Uploaded in;
  DeviceBuffer experts, rows, slots, slot_of;
};

std::vector<std::int32_t> numbers(const DeviceBuffer& buffer) {
  std::vector<std::int32_t> out(buffer.size() / 4);
  buffer.download(out.data());
  return out;
}

py::tuple group(const Ints& chosen, int n_experts) {
  const Slots found(chosen, n_experts);
  return py::make_tuple(numbers(found.experts), numbers(found.rows), numbers(found.slots),
                        numbers(found.slot_of));
}

// A stack of experts; n_out of each is a multiple of 16.
struct Stack {
  Stack(DType dtype, int n_experts, std::int64_t n_out, std::int64_t n_in, const py::bytes& data)
      : memory(packed_bytes(dtype, n_experts * n_out, n_in)),
        weight{.dtype = dtype,
               .n_out = n_out,
               .n_in = n_in,
               .data = memory.data(),
               .n_stacked = n_experts} {
    std::vector<std::byte> packed(memory.size());
    const auto view = static_cast<std::string_view>(data);
    pack_matrix(dtype, n_experts * n_out, n_in, reinterpret_cast<const std::byte*>(view.data()),
                packed.data(), 1);
    memory.upload(packed.data());
  }
  DeviceBuffer memory;
  PackedWeight weight;
};

struct Input {
  Input(const float* x, int n_slots, std::int64_t n_in, const DeviceBuffer& rows, DType dtype)
      : memory(input_bytes(input_kind(dtype), n_slots, n_in)) {
    PackInputArgs args{.x = x,
                       .x_stride = n_in,
                       .n_rows = n_slots,
                       .n_in = n_in,
                       .row_index = rows.as<std::int32_t>(),
                       .norm = {},
                       .out = {}};
    args.out.data[static_cast<int>(input_kind(dtype))] = memory.data();
    run_kernels(device_kernels().pack_input, args);
    packed = args.out;
  }
  DeviceBuffer memory;
  PackedInput packed;
};

Floats experts(std::uint32_t type, int n_experts, std::int64_t size, const py::bytes& gate_data,
               const py::bytes& up_data, const py::bytes& down_data, const Floats& x,
               const Ints& chosen, const Floats& weights) {
  const auto dtype = static_cast<DType>(type);
  const std::int64_t hidden = x.shape(1);
  const Slots found(chosen, n_experts);
  const Stack gate(dtype, n_experts, size, hidden, gate_data);
  const Stack up(dtype, n_experts, size, hidden, up_data);
  const Stack down(dtype, n_experts, hidden, size, down_data);
  const Uploaded d_x(x);
  const Uploaded d_weights(weights);
  const auto n_slots = static_cast<std::size_t>(found.n);
  const DeviceBuffer ffn(n_slots * static_cast<std::size_t>(size) * sizeof(float));
  const DeviceBuffer out(n_slots * static_cast<std::size_t>(hidden) * sizeof(float));
  const Input input(d_x.as<float>(), found.n, hidden, found.rows, dtype);
  run_kernels(device_kernels().gated_linear,
              GatedArgs{.input = input.packed,
                        .n_rows = found.n,
                        .gate = gate.weight,
                        .up = up.weight,
                        .dst = ffn.as<float>(),
                        .dst_stride = size,
                        .experts = found.experts.as<std::int32_t>()});
  const Input inner(ffn.as<float>(), found.n, size, found.slots, dtype);
  LinearArgs linear;
  linear.input = inner.packed;
  linear.n_rows = found.n;
  linear.n_segments = 1;
  linear.experts = found.experts.as<std::int32_t>();
  linear.segments[0] = {.weight = down.weight, .dst = out.as<float>(), .dst_stride = hidden};
  run_kernels(device_kernels().linear, linear);
  Floats y({x.shape(0), x.shape(1)});
  std::memset(y.mutable_data(), 0, static_cast<std::size_t>(y.nbytes()));
  const Uploaded d_y(y);
  run_kernels(device_kernels().combine, CombineArgs{.y = out.as<float>(),
                                                    .y_stride = hidden,
                                                    .slot_of = found.slot_of.as<std::int32_t>(),
                                                    .weights = d_weights.as<float>(),
                                                    .n_rows = static_cast<int>(x.shape(0)),
                                                    .n_used = static_cast<int>(chosen.shape(1)),
                                                    .n = hidden,
                                                    .dst = d_y.as<float>(),
                                                    .dst_stride = hidden});
  d_y.download(y.mutable_data());
  return y;
}

}  // namespace

void bind_experts(py::module_& m) {
  m.def("choose", &choose);
  m.def("group", &group);
  m.def("experts", &experts);
}

}  // namespace specdec::testing
