// DraftMemory as pytest sees it.
#include <pybind11/stl.h>

#include <optional>
#include <tuple>
#include <vector>

#include "decode/draft_memory.h"
#include "decode_bindings.h"

namespace py = pybind11;
using specdec::DraftMemory;
using specdec::TokenId;

void bind_draft_memory(py::module_& m) {
  py::class_<DraftMemory>(m, "DraftMemory", py::module_local())
      .def(py::init<int, std::uint32_t>(), py::arg("max_tokens") = DraftMemory::kDefaultTokens,
           py::arg("first_position") = 1)
      .def(
          "add",
          [](DraftMemory& memory, const std::vector<TokenId>& text, std::uint64_t key) {
            memory.add(key, text);
          },
          py::arg("text"), py::arg("key") = 0, py::call_guard<py::gil_scoped_release>())
      .def("leave_free", &DraftMemory::leave_free)
      .def(
          "add_at",
          [](DraftMemory& memory, std::uint64_t time, const std::vector<TokenId>& text) {
            memory.add_at(time, 0, text);
          },
          py::arg("time"), py::arg("text"))
      .def(
          "look_up",
          [](const DraftMemory& memory, const std::vector<TokenId>& text, int n,
             std::uint64_t key) {
            std::vector<TokenId> out;
            const int length = memory.look_up(key, text, n, out);
            return std::pair(length, out);
          },
          py::arg("text"), py::arg("n"), py::arg("key") = 0,
          py::call_guard<py::gil_scoped_release>())
      .def(
          "add_successors",
          [](DraftMemory& memory, TokenId after, const std::vector<TokenId>& best,
             std::uint64_t key, std::optional<std::uint64_t> time) {
            DraftMemory::Successors row{.after = after, .best = {}};
            row.best.fill(-1);
            std::copy_n(best.begin(), std::min(best.size(), row.best.size()), row.best.begin());
            if (time) {
              memory.add_successors_at(*time, key, std::span(&row, 1));
            } else {
              memory.add_successors(key, std::span(&row, 1));
            }
          },
          py::arg("after"), py::arg("best"), py::arg("key") = 0, py::arg("time") = py::none())
      .def(
          "successors",
          [](const DraftMemory& memory, TokenId after, int n, std::uint64_t key) {
            std::vector<TokenId> row(static_cast<std::size_t>(n), -2);
            return std::pair(memory.find_successors(key, after, row), row);
          },
          py::arg("after"), py::arg("n") = DraftMemory::kRowTokens, py::arg("key") = 0)
      .def("clear", &DraftMemory::clear)
      .def("texts",
           [](const DraftMemory& memory) {
             std::vector<std::pair<std::uint64_t, std::vector<TokenId>>> all;
             memory.visit(
                 [&](std::uint64_t key, std::span<const TokenId> text) {
                   all.emplace_back(key, std::vector<TokenId>(text.begin(), text.end()));
                 },
                 [](std::uint64_t, const DraftMemory::Successors&) {});
             return all;
           })
      .def("stats", [](const DraftMemory& memory) {
        const DraftMemory::Stats s = memory.stats();
        return std::tuple(s.n_tokens, s.n_texts, s.n_rows, s.n_bytes);
      });
}
