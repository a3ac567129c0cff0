// Keys, editing, layout, history and the whole editor on file descriptors of a pseudo-terminal.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cli/line_editor/char_width.h"
#include "cli/line_editor/edit_buffer.h"
#include "cli/line_editor/history.h"
#include "cli/line_editor/keys.h"
#include "cli/line_editor/layout.h"
#include "cli/line_editor/line_editor.h"

namespace py = pybind11;
using namespace specdec::cli;

PYBIND11_MODULE(_testing_line_editor, m) {
  m.def("text_width", [](const std::string& text) { return text_width(text); });

  py::class_<KeyDecoder>(m, "KeyDecoder")
      .def(py::init<>())
      .def("feed", [](KeyDecoder& keys, const py::bytes& bytes) { keys.feed(std::string(bytes)); })
      .def("next",
           [](KeyDecoder& keys) -> py::object {
             const auto key = keys.next();
             if (!key) return py::none();
             return py::make_tuple(static_cast<int>(key->kind), key->text);
           })
      .def("flush",
           [](KeyDecoder& keys) -> py::object {
             const auto key = keys.flush();
             if (!key) return py::none();
             return py::make_tuple(static_cast<int>(key->kind), key->text);
           })
      .def_property_readonly("undecided", &KeyDecoder::undecided);
  py::dict kinds;
  kinds["text"] = static_cast<int>(KeyKind::kText);
  kinds["paste"] = static_cast<int>(KeyKind::kPaste);
  kinds["enter"] = static_cast<int>(KeyKind::kEnter);
  kinds["newline"] = static_cast<int>(KeyKind::kNewline);
  kinds["escape"] = static_cast<int>(KeyKind::kEscape);
  kinds["up"] = static_cast<int>(KeyKind::kUp);
  kinds["home"] = static_cast<int>(KeyKind::kHome);
  kinds["delete"] = static_cast<int>(KeyKind::kDelete);
  kinds["word_right"] = static_cast<int>(KeyKind::kWordRight);
  kinds["interrupt"] = static_cast<int>(KeyKind::kInterrupt);
  kinds["unknown"] = static_cast<int>(KeyKind::kUnknown);
  m.attr("KINDS") = kinds;
  m.attr("MAX_PASTE_BYTES") = kMaxPasteBytes;

  py::class_<EditBuffer>(m, "EditBuffer")
      .def(py::init<>())
      .def_property_readonly("text", &EditBuffer::text)
      .def_property_readonly("cursor", &EditBuffer::cursor)
      .def("assign", &EditBuffer::assign)
      .def("insert", [](EditBuffer& buffer, const std::string& text) { buffer.insert(text); })
      .def("backspace", &EditBuffer::backspace)
      .def("erase", &EditBuffer::erase)
      .def("delete_word_back", &EditBuffer::delete_word_back)
      .def("delete_word_forward", &EditBuffer::delete_word_forward)
      .def("kill_to_line_end", &EditBuffer::kill_to_line_end)
      .def("kill_to_line_start", &EditBuffer::kill_to_line_start)
      .def("yank", &EditBuffer::yank)
      .def("transpose", &EditBuffer::transpose)
      .def("undo", &EditBuffer::undo)
      .def("left", &EditBuffer::left)
      .def("right", &EditBuffer::right)
      .def("word_left", &EditBuffer::word_left)
      .def("word_right", &EditBuffer::word_right)
      .def("line_start", &EditBuffer::line_start)
      .def("line_end", &EditBuffer::line_end)
      .def("up", &EditBuffer::up)
      .def("down", &EditBuffer::down);

  m.def("lay_out", [](const std::string& prompt, const std::string& continuation,
                      const std::string& text, std::size_t cursor, int columns, int n_rows) {
    Layout layout = lay_out(prompt, continuation, text, cursor, columns);
    if (n_rows > 0) layout = visible_part(layout, static_cast<std::size_t>(n_rows));
    return py::make_tuple(layout.rows, layout.widths, layout.cursor_row, layout.cursor_column);
  });

  py::class_<History>(m, "History")
      .def(py::init<std::string>())
      .def("add", &History::add)
      .def_property_readonly("problem", &History::problem)
      .def_property_readonly("entries", [](const History& history) {
        std::vector<std::string> out;
        for (std::size_t i = 0; i < history.size(); ++i) out.push_back(history[i]);
        return out;
      });
  m.def("escape_entry", [](const std::string& entry) { return escape_entry(entry); });
  m.def("unescape_entry", [](const std::string& line) { return unescape_entry(line); });

  // Reads messages from the terminal `fd` until the input ends.
  m.def("read_messages",
        [](int fd, const std::string& history_path, const std::vector<std::string>& commands) {
          History history(history_path);
          LineEditorOptions options;
          options.complete = [&commands](const std::string& before) {
            std::vector<std::string> out;
            for (const std::string& command : commands) {
              if (!before.empty() && command.starts_with(before)) out.push_back(command);
            }
            return out;
          };
          LineEditor editor(fd, fd, history, options);
          std::vector<std::string> messages;
          py::gil_scoped_release release;
          while (true) {
            ReadMessage message = editor.read();
            if (message.end == ReadEnd::kMessage) {
              messages.push_back(message.text);
              continue;
            }
            messages.push_back(message.end == ReadEnd::kInterrupted ? "<interrupted>" : "<end>");
            return messages;
          }
        });
}
