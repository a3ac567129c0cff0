// Shared by the files of the extension module: one function per bound class, and conversions.
#pragma once

#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <memory>
#include <string>
#include <string_view>

#include "engine/loaded_model.h"
#include "sampling/constraint.h"

namespace specdec::bindings {

namespace py = pybind11;

using Fields = py::typing::Dict<py::str, py::object>;  // dict[str, Any] in the stub

void bind_errors(py::module_& m);
void bind_file(py::module_& m);
void bind_model(py::module_& m);
void bind_generation(py::module_& m);
void bind_decoder(py::module_& m);
void bind_memory(py::module_& m);
void bind_drafters(py::module_& m);
void bind_engine(py::module_& m);
void bind_quantize(py::module_& m);
void bind_generate_many(py::module_& m);

// All keys; an array of more than max_array items becomes a description of it.
Fields metadata_dict(const GgufFile& file, std::uint64_t max_array);

// pybind11 has no holder for pointers to const.
struct ModelHandle {
  std::shared_ptr<const LoadedModel> model;
};

// Asks a grammar's matcher (llguidance's LLMatcher) under the GIL.
std::shared_ptr<TokenConstraint> matcher_constraint(py::object matcher);

// Output of a model and text of a file need not be UTF-8; what is not becomes U+FFFD.
inline py::str to_text(std::string_view bytes) {
  PyObject* text =
      PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "replace");
  if (text == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(text);
}

// Raises the class of specdec_native.errors. Needs the GIL.
[[noreturn]] void raise_python(const char* class_name, const std::string& message);

// Raises ForkError in a child of the process that loaded its first model: the thread pool stayed
// behind.
void require_same_process();

}  // namespace specdec::bindings
