// The options of each drafter; fields have the names that they have in Python.
#include "bindings/common.h"
#include "decode/drafter_options.h"

namespace specdec::bindings {
namespace {

// draft_max, draft_min and gamma, which every drafter has.
template <typename Options>
py::class_<Options> options_class(py::module_& m, const char* name) {
  py::class_<Options> c(m, name, py::module_local());
  c.def(py::init<>());
  c.def_property(
      "draft_max", [](const Options& o) { return o.lengths.draft_max; },
      [](Options& o, std::optional<int> value) { o.lengths.draft_max = value; });
  c.def_property(
      "draft_min", [](const Options& o) { return o.lengths.draft_min; },
      [](Options& o, int value) { o.lengths.draft_min = value; });
  c.def_property(
      "gamma", [](const Options& o) { return o.lengths.gamma; },
      [](Options& o, std::optional<int> value) { o.lengths.gamma = value; });
  return c;
}

// How a model picks what it drafts.
template <typename Options>
py::class_<Options>& add_sampling(py::class_<Options>& c) {
  c.def_property(
      "sampling", [](const Options& o) { return std::string(to_string(o.mode)); },
      [](Options& o, const std::string& name) { o.mode = parse_draft_mode(name); });
  c.def_readwrite("temperature", &Options::temperature);
  return c;
}

}  // namespace

void bind_drafters(py::module_& m) {
  auto model = options_class<DraftModelOptions>(m, "DraftModelOptions");
  add_sampling(model)
      .def_readwrite("head_tokens", &DraftModelOptions::head_tokens)
      .def_readwrite("draft_top_k", &DraftModelOptions::top_k)
      .def_readwrite("branch", &DraftModelOptions::branch);

  options_class<NGramOptions>(m, "NGramOptions")
      .def_readwrite("n", &NGramOptions::n)
      .def_readwrite("min_count", &NGramOptions::min_count)
      .def_readwrite("filler_top_k", &NGramOptions::filler_top_k)
      .def_readwrite("keep", &NGramOptions::keep);

  options_class<SuffixOptions>(m, "SuffixOptions")
      .def_readwrite("min_match", &SuffixOptions::min_match)
      .def_property(
          "corpus", [](const SuffixOptions& o) { return py::bytes(o.corpus_text); },
          [](SuffixOptions& o, const py::bytes& text) { o.corpus_text = text; })
      .def_property(
          "corpus_path", [](const SuffixOptions& o) { return py::bytes(o.corpus_path); },
          [](SuffixOptions& o, const py::bytes& path) { o.corpus_path = path; })
      .def_readwrite("keep", &SuffixOptions::keep)
      .def_readwrite("max_store", &SuffixOptions::max_store);

  options_class<RecyclingOptions>(m, "RecyclingOptions")
      .def_readwrite("top_k", &RecyclingOptions::top_k)
      .def_readwrite("tree", &RecyclingOptions::tree)
      .def_readwrite("keep", &RecyclingOptions::keep);

  auto mtp = options_class<MtpOptions>(m, "MtpOptions");
  add_sampling(mtp)
      .def_readwrite("draft_top_k", &MtpOptions::top_k)
      .def_readwrite("head_tokens", &MtpOptions::head_tokens);

  auto eagle = options_class<EagleOptions>(m, "EagleOptions");
  add_sampling(eagle).def_readwrite("draft_top_k", &EagleOptions::top_k);

  auto layers = options_class<LayerSkipOptions>(m, "LayerSkipOptions");
  add_sampling(layers).def_property(
      "n_layers",
      [](const LayerSkipOptions& o) {
        return o.n_layers == 0 ? std::nullopt : std::optional<int>(o.n_layers);
      },
      [](LayerSkipOptions& o, std::optional<int> n) { o.n_layers = n.value_or(0); });
}

}  // namespace specdec::bindings
