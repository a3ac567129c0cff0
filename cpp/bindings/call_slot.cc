#include "bindings/call_slot.h"

#include <utility>

#include "bindings/native_call.h"

namespace specdec::bindings {
namespace {

// What a stream does at once, whatever its Python part comes to: dropping it, leaving its `with`
// block and an exception in __next__ (KeyboardInterrupt, most of all) end the generation. Signals
// are not looked at between the caller's code and these functions, nor inside them.
// The Python part has _take(), which returns the next chunk, and close().
class StreamBase {
 public:
  explicit StreamBase(std::shared_ptr<CancelFlag> cancel) : cancel_(std::move(cancel)) {}
  ~StreamBase() { end(); }
  StreamBase(const StreamBase&) = delete;
  StreamBase& operator=(const StreamBase&) = delete;

  void end() { cancel_->set = true; }

 private:
  std::shared_ptr<CancelFlag> cancel_;
};

py::object next_chunk(const py::object& self) {
  const Inside inside;
  if (interpreter_exits()) throw py::stop_iteration();
  try {
    return self.attr("_take")();
  } catch (const py::error_already_set&) {
    self.cast<StreamBase&>().end();
    throw;
  }
}

void exit_stream(const py::object& self, const py::object&, const py::object&, const py::object&) {
  const Inside inside;
  self.cast<StreamBase&>().end();
  if (!interpreter_exits()) self.attr("close")();
}

}  // namespace

std::shared_ptr<CancelFlag> CallSlot::enter() {
  require_same_process();
  if (closed_) raise_python("ClosedError", "the decoder is closed");
  if (current_) {
    raise_python("SessionBusyError",
                 "the decoder is running another call: wait for it, end it with cancel(), or use "
                 "one decoder per thread");
  }
  current_ = std::make_shared<CancelFlag>();
  return current_;
}

void bind_call_slot(py::module_& m) {
  py::class_<CancelFlag, std::shared_ptr<CancelFlag>>(m, "CancelFlag", py::module_local())
      .def(py::init<>())
      .def("set", [](CancelFlag& flag) { flag.set = true; })
      .def("is_set", [](const CancelFlag& flag) { return flag.set.load(); });

  py::class_<CallSlot>(m, "CallSlot", py::module_local())
      .def(py::init<>())
      .def("__enter__", &CallSlot::enter)
      .def(
          "__exit__",
          [](CallSlot& slot, const py::object&, const py::object&, const py::object&) {
            slot.leave();
          },
          py::arg("kind"), py::arg("error"), py::arg("traceback"))
      .def("cancel", &CallSlot::cancel)
      .def("close", &CallSlot::close)
      .def_property_readonly("busy", &CallSlot::busy)
      .def_property_readonly("closed", &CallSlot::closed);

  py::class_<StreamBase>(m, "StreamBase", py::module_local())
      .def(py::init<std::shared_ptr<CancelFlag>>(), py::arg("cancel"))
      .def("__next__", &next_chunk)
      .def("__exit__", &exit_stream, py::arg("kind"), py::arg("error"), py::arg("traceback"));
}

}  // namespace specdec::bindings
