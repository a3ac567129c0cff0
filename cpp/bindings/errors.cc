// C++ errors become the classes of specdec_native.errors.
#include <unistd.h>

#include <atomic>
#include <exception>
#include <new>

#include "base/error.h"
#include "bindings/common.h"
#include "chat_template/budget.h"

namespace specdec::bindings {
namespace {

const char* class_name(const Error& error) {
  if (dynamic_cast<const chat::TemplateError*>(&error) != nullptr) return "TemplateError";
  switch (error.code()) {
    case ErrorCode::kInvalidArgument:
      return "InvalidArgumentError";
    case ErrorCode::kModelFormat:
      return "ModelFormatError";
    case ErrorCode::kUnsupported:
      return "UnsupportedModelError";
    case ErrorCode::kResource:
      return "ResourceLimitError";
    case ErrorCode::kContextFull:
      return "ContextFullError";
    case ErrorCode::kIo:
      return error.detail().reason == "not_found" ? "ModelFileNotFoundError" : "ModelFileError";
    case ErrorCode::kBusy:
      return "SessionBusyError";
    case ErrorCode::kClosed:
      return "ClosedError";
    case ErrorCode::kNumerical:
      return "NumericalError";
    case ErrorCode::kDevice:
      return "DeviceError";
    case ErrorCode::kCancelled:
    case ErrorCode::kInternal:
      break;
  }
  return "InternalError";
}

py::object error_class(const char* name) {
  return py::module_::import("specdec_native.errors").attr(name);
}

py::object text_or_none(const std::string& text) {
  if (text.empty()) return py::none();
  return to_text(text);
}

void set_python_error(const Error& error) {
  const ErrorDetail& detail = error.detail();
  py::object type = error_class(class_name(error));
  py::dict fields;
  fields["reason"] = to_text(detail.reason);
  fields["path"] = text_or_none(detail.path);
  fields["key"] = text_or_none(detail.key);
  fields["tensor"] = text_or_none(detail.tensor);
  if (detail.offset) fields["offset"] = *detail.offset;
  py::object value = type(to_text(error.what()), **fields);
  PyErr_SetObject(type.ptr(), value.ptr());
}

std::atomic<pid_t> owner_pid{0};

}  // namespace

void raise_python(const char* name, const std::string& message) {
  py::object type = error_class(name);
  py::object value = type(to_text(message));
  PyErr_SetObject(type.ptr(), value.ptr());
  throw py::error_already_set();
}

void require_same_process() {
  const pid_t self = getpid();
  pid_t owner = 0;
  if (owner_pid.compare_exchange_strong(owner, self) || owner == self) return;
  raise_python(
      "ForkError",
      "models cannot be used in a child made by fork() after one was loaded: the worker "
      "threads stay in the parent; start the child with the 'spawn' method, or load models "
      "only in the child");
}

void bind_errors(py::module_&) {
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      set_python_error(error);  // without memory for it: the next translator makes a MemoryError
    } catch (const std::bad_alloc&) {
      py::object type = error_class("ResourceLimitError");
      PyErr_SetString(type.ptr(), "out of memory");
    }
  });
}

}  // namespace specdec::bindings
