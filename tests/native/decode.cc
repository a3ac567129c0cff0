// What pytest needs to see of sampling and decoding below the public API.
#include "decode_bindings.h"

#include "base/error.h"

namespace py = pybind11;

PYBIND11_MODULE(_testing_decode, m) {
  static py::exception<specdec::Error> error(m, "Error");
  py::register_local_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const specdec::Error& e) {
      static const char* const kNames[] = {
          "invalid_argument", "model_format", "unsupported", "resource",
          "context_full",     "io",           "busy",        "closed",
          "cancelled",        "numerical",    "device",      "internal"};
      py::set_error(error,
                    (std::string(kNames[static_cast<int>(e.code())]) + ": " + e.what()).c_str());
    }
  });
  bind_sampling(m);
  bind_laws(m);
  bind_drafting(m);
  bind_session(m);
  bind_draft_memory(m);
}
