// `specdec inspect FILE` of a prompt that --prompt-cache or Decoder.save() keeps.
#include <cstdio>
#include <string>

#include "cli/inspect_report.h"
#include "cli/json.h"
#include "cli/terminal.h"
#include "engine/loaded_model.h"

namespace specdec::cli {
namespace {

std::string hexadecimal(std::uint64_t number) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(number));
  return text;
}

std::string cache_text(const KvFileCache& cache) {
  const KvShape& shape = cache.record.shape;
  std::string out = std::to_string(cache.record.length) + " tokens, " +
                    kv_type_name(shape.layout.type) + ", " + std::to_string(shape.n_layers) +
                    " layers";
  if (shape.forgets())
    out += " (" + std::to_string(shape.n_windowed()) + " with a window of " +
           std::to_string(shape.window) + ")";
  if (shape.n_recurrent_layers > 0)
    out += " and " + std::to_string(shape.n_recurrent_layers) + " recurrent ones";
  return out + ", n_ctx " + std::to_string(cache.n_ctx);
}

}  // namespace

std::string report_line(std::string name, const std::string& value) {
  name.resize(16, ' ');
  return name + value + "\n";
}

std::string report_head(const std::string& path, const std::string& kind,
                        const std::string& version, std::uint64_t n_bytes) {
  return report_line("file", printable(path, 400)) +
         report_line("kind", kind + ", saved by specdec " + printable(version, 40)) +
         report_line("size", human_bytes(static_cast<double>(n_bytes)));
}

std::string inspect_kept(const KvFile& file) {
  const KvFileHead& head = file.head();
  std::string out = report_head(file.path(), "a kept prompt", head.version, file.n_bytes());
  const char* names[] = {"model", "draft model"};
  for (std::size_t i = 0; i < head.caches.size(); ++i) {
    out += report_line(names[i], printable(head.caches[i].model, 400) + ", fingerprint " +
                                     hexadecimal(head.caches[i].fingerprint));
    out += report_line(i == 0 ? "cache" : "draft's cache", cache_text(head.caches[i]));
  }
  return out;
}

std::string inspect_kept_json(const KvFile& file) {
  const KvFileHead& head = file.head();
  JsonWriter json;
  json.begin_object()
      .member("path", file.path())
      .member("kind", "kept prompt")
      .member("version", head.version)
      .member("size_bytes", file.n_bytes())
      .member("token_ids", head.tokens)
      .key("caches")
      .begin_array();
  for (const KvFileCache& cache : head.caches) {
    const KvShape& shape = cache.record.shape;
    json.begin_object()
        .member("model", cache.model)
        .member("fingerprint", hexadecimal(cache.fingerprint))
        .member("n_tokens", cache.record.length)
        .member("n_ctx", cache.n_ctx)
        .member("kv_type", kv_type_name(shape.layout.type))
        .member("n_layers", shape.n_layers)
        .member("n_windowed_layers", shape.n_windowed())
        .member("window", shape.window)
        .member("n_recurrent_layers", shape.n_recurrent_layers)
        .end_object();
  }
  json.end_array().end_object();
  return json.text() + "\n";
}

}  // namespace specdec::cli
