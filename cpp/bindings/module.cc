// specdec_native._core: everything below the typed Python API.
#include <cstddef>
#include <deque>
#include <mutex>

#include "backend/cpu/wide/self_check.h"
#include "backend/device_backend.h"
#include "base/cpu_isa.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "bindings/call_slot.h"
#include "bindings/common.h"
#include "bindings/native_call.h"
#include "engine/placement.h"
#include "engine/speed.h"
#include "model/config.h"
#include "tensor/dtype.h"

namespace specdec::bindings {
namespace {

// Messages wait here until Python fetches them, so that no compute thread ever needs the GIL.
class LogQueue {
 public:
  static LogQueue& instance() {
    static LogQueue* queue = new LogQueue;  // outlives threads that still log at exit
    return *queue;
  }
  void push(LogLevel level, const std::string& message) {
    const std::lock_guard lock(mutex_);
    if (messages_.size() == kMaxMessages) messages_.pop_front();
    messages_.emplace_back(level, message);
  }
  py::typing::List<py::typing::Tuple<py::int_, py::str>> take() {
    std::deque<std::pair<LogLevel, std::string>> messages;
    {
      const std::lock_guard lock(mutex_);
      messages.swap(messages_);
    }
    py::typing::List<py::typing::Tuple<py::int_, py::str>> result;
    for (const auto& [level, text] : messages) {
      result.append(py::make_tuple(10 * (static_cast<int>(level) + 1), to_text(text)));
    }
    return result;
  }

 private:
  static constexpr std::size_t kMaxMessages = 256;
  std::mutex mutex_;
  std::deque<std::pair<LogLevel, std::string>> messages_;
};

Fields build_info() {
  py::list isas, dtypes, architectures;
  for (const CpuIsa isa : supported_cpu_isas()) {
    // What nobody uses is not tried either.
    if (isa != active_cpu_isa() || working_cpu_isa(isa) == isa) isas.append(cpu_isa_name(isa));
  }
  for (const DTypeTraits& dtype : all_dtypes()) dtypes.append(dtype.name);
  for (const std::string& name : supported_architectures()) architectures.append(name);
  Fields info;
  info["version"] = SPECDEC_VERSION;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
  info["cpu_isa"] = cpu_isa_name(working_cpu_isa(active_cpu_isa()));
  info["cpu_isas_supported"] = isas;
  info["n_threads_default"] = ThreadPool::default_n_threads();
  info["architectures"] = architectures;
  info["weight_formats"] = dtypes;
  // The toolkit's version, and what it finds here.
  const std::string cuda = cuda_build_version();
  info["cuda"] = cuda.empty() ? py::object(py::none()) : py::object(py::str(cuda));
  std::string reason;
  py::list devices;
  for (const DeviceInfo& device : cuda_devices(&reason)) {
    devices.append(
        to_text(device.name + ", " + device.architecture + ", " + bytes_text(device.total_bytes)));
  }
  info["cuda_devices"] = devices;
  info["cuda_note"] = to_text(reason);
  return info;
}

}  // namespace
}  // namespace specdec::bindings

PYBIND11_MODULE(_core, m) {
  using namespace specdec;
  using namespace specdec::bindings;
  m.doc() = "The native part of specdec_native; use the package instead.";
  set_log_sink([](LogLevel level, const std::string& message) {
    LogQueue::instance().push(level, message);
  });
  bind_native_call(m);
  bind_errors(m);
  bind_file(m);
  bind_model(m);
  bind_generation(m);
  bind_call_slot(m);
  bind_memory(m);
  bind_decoder(m);
  bind_engine(m);
  bind_quantize(m);
  bind_generate_many(m);
  m.attr("__version__") = SPECDEC_VERSION;
  m.def("build_info", &build_info);
  m.def("take_log", [] { return LogQueue::instance().take(); });
  m.def("read_bandwidth", &read_bandwidth, py::arg("n_threads") = 0, py::call_guard<NativeCall>());
}
