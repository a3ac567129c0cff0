// Test access to the interpreter of chat templates.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "chat_template/formats.h"
#include "chat_template/render.h"
#include "error_code.h"

namespace py = pybind11;
using namespace specdec;

namespace {

py::dict to_dict(const chat::Rendered& rendered) {
  py::list pieces;
  for (const chat::RenderedPiece& piece : rendered.pieces) {
    pieces.append(py::make_tuple(py::bytes(piece.text), piece.from_template));
  }
  py::dict result;
  result["text"] = py::bytes(rendered.text());
  result["pieces"] = pieces;
  result["work"] = rendered.work;
  result["memory_bytes"] = rendered.memory_bytes;
  result["joined_parts"] = rendered.joined_parts;
  return result;
}

chat::RenderOptions options_of(std::uint64_t work, std::uint64_t memory_bytes,
                               std::optional<std::int64_t> now) {
  chat::RenderOptions options;
  if (work > 0) options.limits.work = work;
  if (memory_bytes > 0) options.limits.memory_bytes = memory_bytes;
  if (now) options.clock = [now] { return *now; };
  return options;
}

// Errors become NativeError with the attributes code and reason.
void register_errors(py::module_& m) {
  static PyObject* error_class =
      PyErr_NewException("_testing_chat_template.NativeError", PyExc_RuntimeError, nullptr);
  m.attr("NativeError") = py::reinterpret_borrow<py::object>(error_class);
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& caught) {
      const py::bytes message(caught.what());
      const auto value = py::reinterpret_borrow<py::object>(error_class)(
          message.attr("decode")("utf-8", "replace"));
      value.attr("code") = testing::code_name(caught.code());
      value.attr("reason") = caught.detail().reason;
      PyErr_SetObject(error_class, value.ptr());
    }
  });
}

}  // namespace

PYBIND11_MODULE(_testing_chat_template, m) {
  register_errors(m);
  m.def(
      "render",
      [](const std::string& source, const std::string& variables, bool callers, std::uint64_t work,
         std::uint64_t memory_bytes, std::optional<std::int64_t> now) {
        return to_dict(
            chat::render_template(source, variables, callers, options_of(work, memory_bytes, now)));
      },
      py::arg("source"), py::arg("variables") = "{}", py::kw_only(), py::arg("callers") = false,
      py::arg("work") = 0, py::arg("memory_bytes") = 0, py::arg("now") = std::nullopt);
  m.def(
      "render_chat",
      [](const std::string& source, const std::string& messages, const std::string& tools,
         const std::string& arguments, bool add_generation_prompt,
         const std::vector<std::pair<std::string, std::string>>& tokens,
         std::optional<std::int64_t> now) {
        chat::ChatInput input{source, messages, tools, arguments, add_generation_prompt, tokens};
        return to_dict(chat::render_chat(input, options_of(0, 0, now)));
      },
      py::arg("source"), py::arg("messages"), py::kw_only(), py::arg("tools") = "",
      py::arg("arguments") = "", py::arg("add_generation_prompt") = true,
      py::arg("tokens") = std::vector<std::pair<std::string, std::string>>{},
      py::arg("now") = std::nullopt);
  m.def("format_source",
        [](const std::string& name) { return std::string(chat::find_named_format(name)); });
  m.def("recognise_format",
        [](const std::string& source) { return std::string(chat::recognise_format(source)); });
}
