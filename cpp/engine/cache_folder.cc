#include "engine/cache_folder.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "base/hash.h"
#include "gguf/reader.h"
#include "model/packed_file.h"

namespace specdec {
namespace {

namespace fs = std::filesystem;

constexpr const char* kVariable = "SPECDEC_PACKED";
constexpr const char* kName = "packed";
constexpr const char* kEnding = ".packed";

}  // namespace

std::string cache_folder(const char* variable, const char* name) {
  if (const char* chosen = std::getenv(variable); chosen != nullptr && *chosen != 0)
    return std::string(chosen) == "off" ? "" : chosen;
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home != '/') return {};
  return std::string(home) + "/.cache/specdec-native/" + name;
}

std::string packed_path(const GgufFile& file, const std::string& requantize) {
  const std::string folder = cache_folder(kVariable, kName);
  if (folder.empty()) return {};
  std::error_code error;
  const fs::path whole = fs::canonical(file.path(), error);
  if (error) return {};
  Hash64 hash;
  hash.add_text(whole.native());
  hash.add_text(requantize);
  std::array<char, 20> number{};
  std::snprintf(number.data(), number.size(), "%016llx",
                static_cast<unsigned long long>(hash.value()));
  const std::string stem = whole.stem().native().substr(0, 100);
  return folder + "/" + stem + "-" + number.data() + kEnding;
}

void tidy_packed_folder() noexcept {
  try {
    const std::string folder = cache_folder(kVariable, kName);
    if (folder.empty()) return;
    std::error_code error;
    fs::create_directories(folder, error);
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
      if (entry->path().extension() != kEnding) continue;
      const std::string source = PackedFile::source_of(entry->path().native());
      std::error_code unknown;
      // Where its folder is not there either, it is on a disk, or in a container, that is not.
      if (source.empty() || fs::exists(source, unknown) || unknown) continue;
      if (fs::is_directory(fs::path(source).parent_path(), unknown))
        fs::remove(entry->path(), unknown);
    }
  } catch (...) {  // no memory: next time
  }
}

}  // namespace specdec
