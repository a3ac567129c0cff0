// Test access to the tokenizers.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "error_code.h"
#include "gguf/reader.h"
#include "tokenizer/compare.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/stream_decoder.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace py = pybind11;
using namespace specdec;

namespace {

using Handle = std::shared_ptr<const Tokenizer>;

struct PyTokenizer {
  Handle tokenizer;
};

py::bytes to_bytes(std::string_view text) { return {text.data(), text.size()}; }

std::string_view to_view(const py::bytes& bytes) { return static_cast<std::string_view>(bytes); }

PyTokenizer open_file(const std::string& path) {
  return {Tokenizer::from_gguf(*GgufFile::open(path))};
}

PyTokenizer parse_file(const py::bytes& bytes) {
  const std::string_view view = to_view(bytes);
  const std::span<const std::byte> span(reinterpret_cast<const std::byte*>(view.data()),
                                        view.size());
  return {Tokenizer::from_gguf(*GgufFile::parse(span, "memory.gguf"))};
}

EncodeOptions encode_options(std::optional<bool> add_bos, bool add_eos, bool parse_special) {
  EncodeOptions options;
  options.add_bos = add_bos;
  options.add_eos = add_eos;
  options.parse_special = parse_special;
  return options;
}

DecodeOptions decode_options(bool render_special, bool strip_space_prefix) {
  DecodeOptions options;
  options.render_special = render_special;
  options.strip_space_prefix = strip_space_prefix;
  return options;
}

std::vector<ChatPiece> to_pieces(const std::vector<std::pair<py::bytes, bool>>& pieces) {
  std::vector<ChatPiece> out;
  for (const auto& [text, parse_special] : pieces) {
    out.push_back({std::string(to_view(text)), parse_special});
  }
  return out;
}

py::list stream(const PyTokenizer& self, const std::vector<TokenId>& tokens, bool render_special,
                bool strip_space_prefix) {
  StreamDecoder decoder(self.tokenizer, decode_options(render_special, strip_space_prefix));
  py::list pieces;
  for (const TokenId token : tokens) pieces.append(to_bytes(decoder.push(token)));
  pieces.append(to_bytes(decoder.flush()));
  return pieces;
}

py::dict compare(const PyTokenizer& target, const PyTokenizer& draft) {
  const VocabDifference difference = compare_vocabularies(*target.tokenizer, *draft.tokenizer);
  py::dict out;
  out["compatible"] = difference.compatible;
  out["first_difference"] = difference.first_difference;
  out["target_text"] = to_bytes(difference.target_text);
  out["draft_text"] = to_bytes(difference.draft_text);
  out["n_differences"] = difference.n_differences;
  out["target_size"] = difference.target_size;
  out["draft_size"] = difference.draft_size;
  out["n_shared"] = difference.n_shared;
  out["notes"] = difference.notes;
  out["message"] = difference.message();
  return out;
}

// Errors become NativeError with the attributes code, reason and key.
void register_errors(py::module_& m) {
  static PyObject* error_class =
      PyErr_NewException("_testing_tokenizer.NativeError", PyExc_RuntimeError, nullptr);
  m.attr("NativeError") = py::reinterpret_borrow<py::object>(error_class);
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& caught) {
      const auto value = py::reinterpret_borrow<py::object>(error_class)(caught.what());
      value.attr("code") = testing::code_name(caught.code());
      value.attr("reason") = caught.detail().reason;
      value.attr("key") = printable(caught.detail().key);
      PyErr_SetObject(error_class, value.ptr());
    }
  });
}

}  // namespace

PYBIND11_MODULE(_testing_tokenizer, m) {
  register_errors(m);

  py::class_<PyTokenizer>(m, "Tokenizer", py::module_local())
      .def_static("open", open_file)
      .def_static("parse", parse_file)
      .def(
          "encode",
          [](const PyTokenizer& self, const py::bytes& text, std::optional<bool> add_bos,
             bool add_eos, bool parse_special) {
            return self.tokenizer->encode(to_view(text),
                                          encode_options(add_bos, add_eos, parse_special));
          },
          py::arg("text"), py::kw_only(), py::arg("add_bos") = false, py::arg("add_eos") = false,
          py::arg("parse_special") = false)
      .def("encode_batch",
           [](const PyTokenizer& self, const std::vector<py::bytes>& texts) {
             std::vector<std::string_view> views;
             for (const py::bytes& text : texts) views.push_back(to_view(text));
             std::vector<std::vector<TokenId>> out;
             const py::gil_scoped_release release;
             for (const std::string_view text : views) {
               out.push_back(self.tokenizer->encode(text, encode_options(false, false, false)));
             }
             return out;
           })
      .def(
          "encode_chat",
          [](const PyTokenizer& self, const std::vector<std::pair<py::bytes, bool>>& pieces,
             std::optional<bool> add_bos) {
            return self.tokenizer->encode_chat(to_pieces(pieces),
                                               encode_options(add_bos, false, false));
          },
          py::arg("pieces"), py::kw_only(), py::arg("add_bos") = false)
      .def(
          "decode",
          [](const PyTokenizer& self, const std::vector<TokenId>& tokens, bool render_special,
             bool strip_space_prefix) {
            return to_bytes(
                self.tokenizer->decode(tokens, decode_options(render_special, strip_space_prefix)));
          },
          py::arg("tokens"), py::kw_only(), py::arg("render_special") = false,
          py::arg("strip_space_prefix") = false)
      .def(
          "decode_bytes",
          [](const PyTokenizer& self, const std::vector<TokenId>& tokens, bool render_special,
             bool strip_space_prefix) {
            return to_bytes(self.tokenizer->decode_bytes(
                tokens, decode_options(render_special, strip_space_prefix)));
          },
          py::arg("tokens"), py::kw_only(), py::arg("render_special") = false,
          py::arg("strip_space_prefix") = false)
      .def("stream", stream, py::arg("tokens"), py::kw_only(), py::arg("render_special") = false,
           py::arg("strip_space_prefix") = false)
      .def("token_bytes", [](const PyTokenizer& self,
                             TokenId id) { return to_bytes(self.tokenizer->token_bytes(id)); })
      .def("token_text", [](const PyTokenizer& self,
                            TokenId id) { return to_bytes(self.tokenizer->token_text(id)); })
      .def("is_control",
           [](const PyTokenizer& self, TokenId id) { return self.tokenizer->is_control(id); })
      .def("is_hidden",
           [](const PyTokenizer& self, TokenId id) { return self.tokenizer->is_hidden(id); })
      .def("is_eog", [](const PyTokenizer& self, TokenId id) { return self.tokenizer->is_eog(id); })
      .def("find_token",
           [](const PyTokenizer& self, const py::bytes& text) {
             return self.tokenizer->find_token(to_view(text));
           })
      .def_property_readonly("n_tokens",
                             [](const PyTokenizer& self) { return self.tokenizer->n_tokens(); })
      .def_property_readonly("bos_id",
                             [](const PyTokenizer& self) { return self.tokenizer->bos_id(); })
      .def_property_readonly("eos_id",
                             [](const PyTokenizer& self) { return self.tokenizer->eos_id(); })
      .def_property_readonly("eot_id",
                             [](const PyTokenizer& self) { return self.tokenizer->eot_id(); })
      .def_property_readonly("unknown_id",
                             [](const PyTokenizer& self) { return self.tokenizer->unknown_id(); })
      .def_property_readonly("eog_ids",
                             [](const PyTokenizer& self) { return self.tokenizer->eog_ids(); })
      .def_property_readonly("add_bos",
                             [](const PyTokenizer& self) { return self.tokenizer->add_bos(); })
      .def_property_readonly("model",
                             [](const PyTokenizer& self) { return self.tokenizer->model(); })
      .def_property_readonly("pre", [](const PyTokenizer& self) { return self.tokenizer->pre(); })
      .def_property_readonly(
          "chat_template", [](const PyTokenizer& self) { return self.tokenizer->chat_template(); })
      .def_property_readonly("warnings",
                             [](const PyTokenizer& self) { return self.tokenizer->warnings(); });

  m.def("compare", compare);
  m.def("split_words", [](const std::string& pre, const py::bytes& text) {
    const PreTokenizer* found = find_pre_tokenizer(pre);
    if (found == nullptr) throw py::value_error("unknown pre-tokenizer " + pre);
    SplitScratch scratch;
    std::vector<std::uint32_t> ends;
    split_words(found->rule, to_view(text), scratch, ends);
    py::list words;
    std::uint32_t begin = 0;
    for (const std::uint32_t end : ends) {
      words.append(to_bytes(to_view(text).substr(begin, end - begin)));
      begin = end;
    }
    return words;
  });
  m.def("known_pre_tokenizers", known_pre_tokenizers);
  m.def("replace_invalid_utf8",
        [](const py::bytes& bytes) { return to_bytes(replace_invalid_utf8(to_view(bytes))); });
  m.def("char_classes", [] {
    std::string classes;
    for (std::uint32_t c = 0; c < 0x110000; ++c) classes += static_cast<char>(char_class(c));
    return to_bytes(classes);
  });
}
