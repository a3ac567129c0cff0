// Test access to the reference codecs.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <string>
#include <vector>

#include "quant/blocks.h"
#include "quant/codec.h"
#include "quant/encode.h"
#include "quant/requantize.h"

namespace py = pybind11;
using namespace specdec;

namespace {

DType dtype_named(const std::string& name) {
  const auto dtype = parse_dtype(name);
  if (!dtype) throw py::value_error("unknown dtype " + name);
  return *dtype;
}

py::array_t<float> dequantize(const std::string& name, const py::bytes& packed) {
  const DTypeTraits& traits = dtype_traits(dtype_named(name));
  const auto view = static_cast<std::string_view>(packed);
  std::vector<std::uint16_t> aligned((view.size() + 1) / 2);
  std::memcpy(aligned.data(), view.data(), view.size());
  const auto n =
      static_cast<std::int64_t>(view.size() / traits.block_bytes * traits.block_elements);
  py::array_t<float> out(n);
  codec(traits.dtype).dequantize(aligned.data(), out.mutable_data(), n);
  return out;
}

py::object quantize(const std::string& name, const py::array_t<float, py::array::c_style>& values) {
  const DTypeTraits& traits = dtype_traits(dtype_named(name));
  const Codec& the_codec = codec(traits.dtype);
  if (the_codec.quantize == nullptr) return py::none();
  const auto n = static_cast<std::uint64_t>(values.size());
  std::string out(row_bytes(traits.dtype, n), '\xAA');
  the_codec.quantize(values.data(), out.data(), static_cast<std::int64_t>(n));
  return py::bytes(out);
}

py::bytes encode(const std::string& name, const py::array_t<float, py::array::c_style>& values) {
  const DType dtype = dtype_named(name);
  if (encoder(dtype) == nullptr) throw py::value_error(name + " is only read");
  const auto n = static_cast<std::uint64_t>(values.size());
  std::string out(row_bytes(dtype, n), '\xAA');
  encoder(dtype)(values.data(), out.data(), static_cast<std::int64_t>(n));
  return py::bytes(out);
}

py::bytes requantize_rows(std::uint32_t from, const std::string& data, std::int64_t n_rows,
                          std::int64_t n_in, const std::string& to, int n_threads) {
  const std::vector<std::byte> out =
      requantize(static_cast<DType>(from), std::as_bytes(std::span(data.data(), data.size())),
                 n_rows, n_in, parse_requantize_type(to), n_threads);
  return {reinterpret_cast<const char*>(out.data()), out.size()};
}

}  // namespace

PYBIND11_MODULE(_testing_quant, module) {
  module.def("dequantize", &dequantize);
  module.def("quantize", &quantize);
  module.def("encode", &encode);
  module.def("requantize", &requantize_rows);
  module.def("requantize_pays", [](std::uint32_t from, std::int64_t n_in, const std::string& to) {
    return requantize_pays(static_cast<DType>(from), n_in, parse_requantize_type(to));
  });
  module.def("dtypes", [] {
    std::vector<py::tuple> out;
    for (const auto& t : all_dtypes()) {
      out.push_back(py::make_tuple(t.name, static_cast<std::uint32_t>(t.dtype), t.block_elements,
                                   t.block_bytes, codec(t.dtype).quantize != nullptr,
                                   std::vector<int>(std::begin(t.half_at), std::end(t.half_at))));
    }
    return out;
  });
  // (dtype name, sizeof the block struct) of each format of blocks.
  module.def("block_sizes", [] {
    std::vector<std::pair<std::string, std::size_t>> out;
#define SPECDEC_BLOCK(name, ...) out.emplace_back(#name, sizeof(Block##name));
#include "tensor/formats.def"
    return out;
  });
  module.def("gguf_type_name", &gguf_type_name);
}
