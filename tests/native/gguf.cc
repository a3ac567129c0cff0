// Test access to the GGUF reader and writer.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "error_code.h"
#include "gguf/reader.h"
#include "gguf/writer.h"
#include "gguf_exercise.h"

namespace py = pybind11;
using namespace specdec;

namespace {

std::span<const std::byte> as_span(const py::bytes& bytes) {
  const auto view = static_cast<std::string_view>(bytes);
  return {reinterpret_cast<const std::byte*>(view.data()), view.size()};
}

GgufLimits limits_from(const py::dict& values) {
  GgufLimits limits;
  for (const auto& [key, value] : values) {
    const auto name = key.cast<std::string>();
    const auto number = value.cast<std::uint64_t>();
    if (name == "max_keys")
      limits.max_keys = number;
    else if (name == "max_tensors")
      limits.max_tensors = number;
    else if (name == "max_array_elements")
      limits.max_array_elements = number;
    else if (name == "max_string_bytes")
      limits.max_string_bytes = number;
    else
      throw py::value_error("unknown limit " + name);
  }
  return limits;
}

py::object bytes_of(std::string_view text) { return py::bytes(text.data(), text.size()); }

// The value as a Python object; strings as bytes.
py::object to_python(const GgufValue& value) {
  py::list list;
  if (!value.is_array()) {
    if (value.type() == GgufType::kString) return bytes_of(value.as_string());
    if (value.type() == GgufType::kBool) return py::bool_(value.as_bool());
    if (value.type() == GgufType::kF32 || value.type() == GgufType::kF64)
      return py::float_(value.as_f64());
    if (value.type() == GgufType::kU64) return py::int_(value.as_u64());
    return py::int_(value.as_i64());
  }
  switch (value.element_type()) {
    case GgufType::kString:
      for (const auto text : value.as_string_array()) list.append(bytes_of(text));
      return list;
    case GgufType::kBool:
      for (const bool flag : value.as_bool_array()) list.append(flag);
      return list;
    default: {
      // Element by element, through scalar views: covers negative integers and f64.
      const std::uint32_t stride = gguf_value_type_bytes(value.element_type());
      for (std::uint64_t i = 0; i < value.count(); ++i) {
        list.append(to_python(
            {value.element_type(), value.element_type(), value.data() + i * stride, 1, stride}));
      }
      return list;
    }
  }
}

struct File {
  std::shared_ptr<const GgufFile> file;
  py::object keep_alive;
};

py::dict tensor_dict(const TensorInfo& tensor) {
  py::dict out;
  out["name"] = tensor.name;
  out["type_id"] = tensor.type_id;
  out["dtype"] = dtype_traits(tensor.dtype).name;
  out["shape"] = tensor.shape;
  out["offset"] = tensor.offset;
  out["n_bytes"] = tensor.n_bytes;
  out["n_elements"] = tensor.n_elements;
  return out;
}

const TensorInfo& tensor_named(const GgufFile& file, const std::string& name) {
  const TensorInfo* tensor = file.find_tensor(name);
  if (tensor == nullptr) throw py::key_error(name);
  return *tensor;
}

template <typename T>
void add_numbers(GgufWriter& writer, const std::string& key, const py::handle& value) {
  const auto values = value.cast<std::vector<T>>();
  writer.add_array<T>(key, values);
}

void add_key(GgufWriter& writer, const std::string& key, const std::string& type,
             const py::handle& value) {
  if (type == "u8")
    writer.add_u8(key, value.cast<std::uint8_t>());
  else if (type == "i8")
    writer.add_i8(key, value.cast<std::int8_t>());
  else if (type == "u16")
    writer.add_u16(key, value.cast<std::uint16_t>());
  else if (type == "i16")
    writer.add_i16(key, value.cast<std::int16_t>());
  else if (type == "u32")
    writer.add_u32(key, value.cast<std::uint32_t>());
  else if (type == "i32")
    writer.add_i32(key, value.cast<std::int32_t>());
  else if (type == "u64")
    writer.add_u64(key, value.cast<std::uint64_t>());
  else if (type == "i64")
    writer.add_i64(key, value.cast<std::int64_t>());
  else if (type == "f32")
    writer.add_f32(key, value.cast<float>());
  else if (type == "f64")
    writer.add_f64(key, value.cast<double>());
  else if (type == "bool")
    writer.add_bool(key, value.cast<bool>());
  else if (type == "string")
    writer.add_string(key, value.cast<std::string>());
  else if (type == "[u8]")
    add_numbers<std::uint8_t>(writer, key, value);
  else if (type == "[i8]")
    add_numbers<std::int8_t>(writer, key, value);
  else if (type == "[u16]")
    add_numbers<std::uint16_t>(writer, key, value);
  else if (type == "[i16]")
    add_numbers<std::int16_t>(writer, key, value);
  else if (type == "[u32]")
    add_numbers<std::uint32_t>(writer, key, value);
  else if (type == "[i32]")
    add_numbers<std::int32_t>(writer, key, value);
  else if (type == "[u64]")
    add_numbers<std::uint64_t>(writer, key, value);
  else if (type == "[i64]")
    add_numbers<std::int64_t>(writer, key, value);
  else if (type == "[f32]")
    add_numbers<float>(writer, key, value);
  else if (type == "[f64]")
    add_numbers<double>(writer, key, value);
  else if (type == "[bool]")
    writer.add_bool_array(key, value.cast<std::vector<bool>>());
  else if (type == "[string]") {
    const auto texts = value.cast<std::vector<std::string>>();
    writer.add_string_array(key, std::span<const std::string>(texts));
  } else
    throw py::value_error("unknown type " + type);
}

// keys: (key, type, value); tensors: (name, dtype, shape, bytes or list of bytes).
std::uint64_t write_file(const std::string& path, const py::list& keys, const py::list& tensors,
                         std::uint32_t alignment) {
  GgufWriter writer(alignment);
  for (const auto& item : keys) {
    const auto entry = item.cast<py::tuple>();
    add_key(writer, entry[0].cast<std::string>(), entry[1].cast<std::string>(), entry[2]);
  }
  for (const auto& item : tensors) {
    const auto entry = item.cast<py::tuple>();
    const auto name = entry[0].cast<std::string>();
    const auto dtype = parse_dtype(entry[1].cast<std::string>());
    if (!dtype) throw py::value_error("unknown dtype");
    const auto shape = entry[2].cast<std::vector<std::uint64_t>>();
    if (py::isinstance<py::bytes>(entry[3])) {
      writer.add_tensor(name, *dtype, shape, as_span(entry[3].cast<py::bytes>()));
    } else {
      const auto pieces = entry[3].cast<py::list>();
      writer.add_tensor(name, *dtype, shape, [pieces](const GgufWriter::Sink& sink) {
        for (const auto& piece : pieces) sink(as_span(piece.cast<py::bytes>()));
      });
    }
  }
  return writer.write(path);
}

// Reads `source` and writes everything in it to `target`, which may be the same file.
void copy_file(const std::string& source, const std::string& target) {
  const auto file = GgufFile::open(source);
  GgufWriter writer(file->alignment());
  for (const auto& entry : file->entries()) writer.add_value(entry.key, entry.value);
  for (const auto& tensor : file->tensors()) {
    writer.add_tensor(tensor.name, tensor.dtype, tensor.shape, file->tensor_data(tensor));
  }
  writer.write(target);
}

// Each byte before `end` replaced by 0, 255, itself ^ 1 and itself ^ 128: (accepted, refused).
std::pair<int, int> probe_mutations(const py::bytes& bytes, std::size_t end) {
  const auto original = as_span(bytes);
  testing::GuardedCopy copy(original);
  int accepted = 0;
  int refused = 0;
  for (std::size_t i = 0; i < std::min(end, original.size()); ++i) {
    const auto old = static_cast<unsigned>(original[i]);
    for (const unsigned value : {0U, 255U, old ^ 1U, old ^ 128U}) {
      copy.data()[i] = static_cast<std::byte>(value);
      ++(testing::accepts(copy.bytes()) ? accepted : refused);
    }
    copy.data()[i] = original[i];
  }
  return {accepted, refused};
}

// The lengths to which the bytes can be cut and are still accepted.
std::vector<std::size_t> accepted_truncations(const py::bytes& bytes) {
  const auto original = as_span(bytes);
  std::vector<std::size_t> out;
  for (std::size_t length = 0; length < original.size(); ++length) {
    const testing::GuardedCopy copy(original.first(length));
    if (testing::accepts(copy.bytes())) out.push_back(length);
  }
  return out;
}

void register_error(py::module_& module) {
  static PyObject* error_class =
      PyErr_NewException("_testing_gguf.Error", PyExc_RuntimeError, nullptr);
  module.attr("Error") = py::reinterpret_borrow<py::object>(error_class);
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      const py::object instance = py::reinterpret_borrow<py::object>(error_class)(error.what());
      const ErrorDetail& detail = error.detail();
      instance.attr("code") = testing::code_name(error.code());
      instance.attr("reason") = detail.reason;
      instance.attr("path") = bytes_of(detail.path);
      instance.attr("key") = bytes_of(detail.key);
      instance.attr("tensor") = bytes_of(detail.tensor);
      instance.attr("offset") = detail.offset;
      PyErr_SetObject(error_class, instance.ptr());
    }
  });
}

}  // namespace

PYBIND11_MODULE(_testing_gguf, module) {
  register_error(module);
  module.def(
      "parse",
      [](const py::bytes& bytes, const py::dict& limits, const std::string& path) {
        return File{GgufFile::parse(as_span(bytes), path, limits_from(limits)), bytes};
      },
      py::arg("bytes"), py::arg("limits") = py::dict(), py::arg("path") = "memory.gguf");
  module.def(
      "open",
      [](const std::string& path, const py::dict& limits) {
        return File{GgufFile::open(path, limits_from(limits)), py::none()};
      },
      py::arg("path"), py::arg("limits") = py::dict());
  module.def("write", &write_file, py::arg("path"), py::arg("keys") = py::list(),
             py::arg("tensors") = py::list(), py::arg("alignment") = 32);
  module.def("copy_file", &copy_file);
  module.def("probe_mutations", &probe_mutations);
  module.def("accepted_truncations", &accepted_truncations);

  py::class_<File>(module, "File", py::module_local())
      .def_property_readonly("version", [](const File& f) { return f.file->version(); })
      .def_property_readonly("alignment", [](const File& f) { return f.file->alignment(); })
      .def_property_readonly("file_size", [](const File& f) { return f.file->file_size(); })
      .def_property_readonly("data_start", [](const File& f) { return f.file->data_start(); })
      .def_property_readonly("is_mapped", [](const File& f) { return f.keep_alive.is_none(); })
      .def_property_readonly("warnings", [](const File& f) { return f.file->warnings(); })
      .def("key_names",
           [](const File& f) {
             py::list out;
             for (const auto& entry : f.file->entries()) out.append(bytes_of(entry.key));
             return out;
           })
      .def("type_name",
           [](const File& f, const std::string& key) { return f.file->require(key).type_name(); })
      .def("count",
           [](const File& f, const std::string& key) { return f.file->require(key).count(); })
      .def("value",
           [](const File& f, const std::string& key) { return to_python(f.file->require(key)); })
      .def(
          "display",
          [](const File& f, const std::string& key, std::size_t max_bytes) {
            return f.file->require(key).to_display_string(max_bytes);
          },
          py::arg("key"), py::arg("max_bytes") = 80)
      .def("has",
           [](const File& f, const std::string& key) { return f.file->find(key) != nullptr; })
      .def("require_u64",
           [](const File& f, const std::string& key) { return f.file->require_u64(key); })
      .def("get_u64", [](const File& f, const std::string& k,
                         std::uint64_t d) { return f.file->get_u64(k, d); })
      .def("get_i64", [](const File& f, const std::string& k,
                         std::int64_t d) { return f.file->get_i64(k, d); })
      .def("require_f32",
           [](const File& f, const std::string& key) { return f.file->require_f32(key); })
      .def("get_f32",
           [](const File& f, const std::string& k, float d) { return f.file->get_f32(k, d); })
      .def("get_bool",
           [](const File& f, const std::string& k, bool d) { return f.file->get_bool(k, d); })
      .def("require_string",
           [](const File& f, const std::string& key) {
             return bytes_of(f.file->require_string(key));
           })
      .def("get_string",
           [](const File& f, const std::string& key, const std::string& fallback) {
             return bytes_of(f.file->get_string(key, fallback));
           })
      .def("f32_array",
           [](const File& f, const std::string& key) { return f.file->get_f32_array(key); })
      .def("i32_array",
           [](const File& f, const std::string& key) { return f.file->get_i32_array(key); })
      .def("u64_array",
           [](const File& f, const std::string& key) { return f.file->get_u64_array(key); })
      .def("bool_array",
           [](const File& f, const std::string& key) { return f.file->get_bool_array(key); })
      .def("string_array",
           [](const File& f, const std::string& key) {
             py::list out;
             for (const auto text : f.file->get_string_array(key)) out.append(bytes_of(text));
             return out;
           })
      .def("architecture", [](const File& f) { return bytes_of(f.file->architecture()); })
      .def("tensors",
           [](const File& f) {
             py::list out;
             for (const auto& tensor : f.file->tensors()) out.append(tensor_dict(tensor));
             return out;
           })
      .def("has_tensor",
           [](const File& f, const std::string& name) {
             return f.file->find_tensor(name) != nullptr;
           })
      .def("tensor_bytes",
           [](const File& f, const std::string& name) {
             const auto data = f.file->tensor_data(tensor_named(*f.file, name));
             return py::bytes(reinterpret_cast<const char*>(data.data()), data.size());
           })
      .def("check_values",
           [](const File& f, const std::string& name) {
             check_tensor_values(*f.file, tensor_named(*f.file, name));
           })
      .def("exercise", [](const File& f) { return testing::exercise(*f.file); });
}
