// What `specdec inspect` found in a file, and how it is shown.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/memory_file.h"
#include "engine/model_info.h"
#include "engine/pair.h"
#include "gguf/reader.h"
#include "kv/kv_file.h"
#include "tokenizer/tokenizer.h"

namespace specdec::cli {

// A file's tokenizer, or why it cannot be read.
struct FileTokenizer {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::vector<std::string> warnings;

  explicit FileTokenizer(const GgufFile& file);
};

struct Inspected {
  std::shared_ptr<const GgufFile> file;
  ModelInfo info;
  FileTokenizer tokenizer;
  std::optional<ModelInfo> draft;
  std::optional<PairReport> pair;
  std::vector<std::string> placement;
};

// What decoding with a model keeps in memory. Weights are repacked into about as many bytes.
struct Memory {
  std::uint64_t weights = 0;
  std::uint64_t cache_per_token = 0;  // F16
};

[[nodiscard]] Memory memory_of(const ModelInfo& info);
[[nodiscard]] double cache_bytes(const Memory& memory, int n_ctx);
[[nodiscard]] double total_bytes(const Memory& memory, int n_ctx);

// Empty: none.
[[nodiscard]] std::string chat_template_of(const GgufFile& file);

[[nodiscard]] std::string report_line(std::string name, const std::string& value);
// The first lines about a file of this program's own.
[[nodiscard]] std::string report_head(const std::string& path, const std::string& kind,
                                      const std::string& version, std::uint64_t n_bytes);

[[nodiscard]] std::string inspect_kept(const KvFile& file);
[[nodiscard]] std::string inspect_kept_json(const KvFile& file);

[[nodiscard]] std::string inspect_memory(const MemoryFile& file);
[[nodiscard]] std::string inspect_memory_json(const MemoryFile& file);

[[nodiscard]] std::string inspect_summary(const Inspected& seen, int n_ctx);
[[nodiscard]] std::string inspect_keys(const GgufFile& file);
[[nodiscard]] std::string inspect_tensors(const GgufFile& file);
[[nodiscard]] std::string inspect_json(const Inspected& seen, int n_ctx, bool with_tensors);

}  // namespace specdec::cli
