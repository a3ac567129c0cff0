// TextMemory as _core.Memory.
#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "bindings/common.h"
#include "bindings/native_call.h"
#include "engine/text_memory.h"

namespace specdec::bindings {
namespace {

// Those with a file, to be saved when the interpreter exits. Guarded by the GIL.
std::vector<std::weak_ptr<TextMemory>>& open_memories() {
  static auto* const open = new std::vector<std::weak_ptr<TextMemory>>();  // outlives destructors
  return *open;
}

std::shared_ptr<TextMemory> make_memory(const py::bytes& path, int max_tokens) {
  auto memory = std::make_shared<TextMemory>(std::string(path), max_tokens);
  if (memory->path().empty()) return memory;
  auto& open = open_memories();
  std::erase_if(open, [](const auto& other) { return other.expired(); });
  open.push_back(memory);
  return memory;
}

Fields stats_of(const TextMemory& memory) {
  const DraftMemory::Stats stats = memory.texts()->stats();
  Fields fields;
  fields["max_tokens"] = stats.max_tokens;
  fields["tokens"] = stats.n_tokens;
  fields["texts"] = stats.n_texts;
  fields["successors"] = stats.n_rows;
  fields["bytes"] = stats.n_bytes;
  return fields;
}

}  // namespace

void bind_memory(py::module_& m) {
  py::class_<TextMemory, std::shared_ptr<TextMemory>>(m, "Memory", py::module_local())
      .def(py::init(&make_memory), py::arg("path"), py::arg("max_tokens"))
      .def(
          "bind",
          [](TextMemory& memory, const ModelHandle& model) {
            const NativeCall call;
            memory.bind(*model.model);
          },
          py::arg("model"))
      .def("save", &TextMemory::save, py::call_guard<NativeCall>())
      .def("clear", &TextMemory::clear, py::call_guard<NativeCall>())
      .def("stats", &stats_of);
  py::module_::import("atexit").attr("register")(py::cpp_function([] {
    const auto open = open_memories();
    const NativeCall call;
    for (const auto& weak : open)
      if (const auto memory = weak.lock()) memory->save_at_end();
  }));
}

}  // namespace specdec::bindings
