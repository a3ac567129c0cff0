// `specdec inspect FILE` of a memory that --memory keeps: what it holds, not the texts.
#include <string>

#include "cli/inspect_report.h"
#include "cli/json.h"
#include "cli/terminal.h"

namespace specdec::cli {

std::string inspect_memory(const MemoryFile& file) {
  const MemoryFileHead& head = file.head();
  std::string out =
      report_head(file.path(), "a memory of earlier requests", head.version, file.n_bytes());
  out += report_line("model", printable(head.model, 400) + ", vocabulary of " +
                                  std::to_string(head.n_vocabulary) + " tokens");
  out += report_line("texts", std::to_string(file.n_texts()) + " of " +
                                  std::to_string(file.n_tokens()) + " tokens in all, under " +
                                  std::to_string(file.n_keys()) + " keys");
  out += report_line("successors", "of " + std::to_string(file.n_rows()) + " tokens");
  return out;
}

std::string inspect_memory_json(const MemoryFile& file) {
  const MemoryFileHead& head = file.head();
  JsonWriter json;
  json.begin_object()
      .member("path", file.path())
      .member("kind", "memory")
      .member("version", head.version)
      .member("size_bytes", file.n_bytes())
      .member("model", head.model)
      .member("n_vocabulary", static_cast<std::uint64_t>(head.n_vocabulary))
      .member("n_texts", file.n_texts())
      .member("n_tokens", file.n_tokens())
      .member("n_keys", file.n_keys())
      .member("n_successors", file.n_rows())
      .end_object();
  return json.text() + "\n";
}

}  // namespace specdec::cli
