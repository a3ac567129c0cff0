// Test access to grammars: texts, and masks of made-up vocabularies.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "base/error.h"
#include "grammar/constraint.h"
#include "grammar/gbnf.h"
#include "grammar/json_schema.h"

namespace py = pybind11;
using namespace specdec;
using namespace specdec::grammar;

namespace {

std::shared_ptr<const Automaton> compile(const std::string& kind, const std::string& source) {
  return std::make_shared<const Automaton>(kind == "gbnf" ? gbnf_automaton(source)
                                                          : json_schema_automaton(source));
}

// What an outside caller sees of a grammar: whether a text may begin so, and be all.
class Texts {
 public:
  explicit Texts(std::shared_ptr<const Automaton> automaton) : walker_(std::move(automaton)) {}

  py::tuple read(const std::string& text) {
    Walker::Place place = walker_.start();
    std::size_t n = 0;
    for (const char c : text) {
      const Walker::Place next = walker_.step(place, static_cast<unsigned char>(c));
      if (next == Walker::kNowhere) break;
      place = next;
      ++n;
    }
    return py::make_tuple(n, n == text.size() && walker_.may_end(place));
  }

  std::vector<int> following(const std::string& text) {
    Walker::Place place = walker_.start();
    for (const char c : text) place = walker_.step(place, static_cast<unsigned char>(c));
    std::vector<int> bytes;
    const ByteSet set = walker_.following(place);
    for (int byte = 0; byte < 256; ++byte)
      if (set.test(static_cast<std::size_t>(byte))) bytes.push_back(byte);
    return bytes;
  }

 private:
  Walker walker_;
};

}  // namespace

PYBIND11_MODULE(_testing_grammar, m) {
  py::register_exception<Error>(m, "NativeError", PyExc_ValueError);
  py::class_<Texts>(m, "Texts")
      .def(py::init([](const std::string& kind, const std::string& source) {
        return Texts(compile(kind, source));
      }))
      .def("read", &Texts::read)
      .def("following", &Texts::following);
  py::class_<TokenTrie, std::shared_ptr<TokenTrie>>(m, "Vocabulary")
      .def(py::init<std::vector<std::string>, std::vector<TokenId>>());
  py::class_<GrammarConstraint>(m, "Constraint")
      .def(py::init([](const std::string& kind, const std::string& source,
                       std::shared_ptr<TokenTrie> vocabulary) {
        return std::make_unique<GrammarConstraint>(compile(kind, source), std::move(vocabulary));
      }))
      .def("allow",
           [](GrammarConstraint& self, const std::vector<TokenId>& text, std::size_t n_vocab) {
             std::vector<std::uint32_t> mask((n_vocab + 31) / 32);
             self.allow(text, mask);
             std::vector<bool> out(n_vocab);
             for (std::size_t i = 0; i < n_vocab; ++i)
               out[i] = (mask[i / 32] >> (i % 32) & 1U) != 0;
             return out;
           })
      .def("n_allowed", [](GrammarConstraint& self, const std::vector<TokenId>& text,
                           const std::vector<TokenId>& next) { return self.n_allowed(text, next); })
      .def("forced", [](GrammarConstraint& self, const std::vector<TokenId>& text) {
        return self.forced(text);
      });
}
