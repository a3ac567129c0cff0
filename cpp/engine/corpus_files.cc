#include "engine/corpus_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "base/open_file.h"
#include "tokenizer/utf8.h"

namespace specdec {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxListedBytes = std::uint64_t{1} << 20;
constexpr std::uint64_t kMaxNamedBytes = std::uint64_t{256} << 20;

struct Candidate {
  fs::file_time_type changed;
  std::string path;
  std::uint64_t n_bytes;
};

std::string read_file(const std::string& path) {
  const OpenFile file(path);
  std::string text(file.size(), '\0');
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::read(file.fd(), text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_file_error(path, "cannot read", errno);
    if (n == 0) break;  // it was made shorter meanwhile
    done += static_cast<std::size_t>(n);
  }
  text.resize(done);
  return text;
}

bool is_text(const std::string& bytes) {
  return !bytes.empty() && bytes.find('\0') == std::string::npos &&
         replace_invalid_utf8(bytes) == bytes;
}

// What can be looked at; folders that may not be entered are passed over.
std::vector<Candidate> candidates(const std::string& folder, const std::function<void()>& poll) {
  std::vector<Candidate> found;
  std::error_code error;
  fs::recursive_directory_iterator at(folder, fs::directory_options::skip_permission_denied, error);
  if (error) throw_file_error(folder, "cannot read the folder", error.value());
  for (; at != fs::recursive_directory_iterator(); at.increment(error)) {
    if (error) break;
    if (poll) poll();
    const fs::directory_entry& entry = *at;
    std::error_code ignored;
    const bool hidden = entry.path().filename().native().starts_with('.');
    if (hidden || entry.is_symlink(ignored)) {
      at.disable_recursion_pending();
      continue;
    }
    if (!entry.is_regular_file(ignored)) continue;
    const std::uint64_t n_bytes = entry.file_size(ignored);
    if (ignored || n_bytes == 0 || n_bytes > kMaxListedBytes) continue;
    const auto changed = entry.last_write_time(ignored);
    if (!ignored) found.push_back({changed, entry.path().native(), n_bytes});
  }
  // Files of one time in the order of their names, so that the same folder gives the same texts.
  std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) {
    return a.changed != b.changed ? a.changed > b.changed : a.path < b.path;
  });
  return found;
}

}  // namespace

std::vector<std::string> read_corpus(const std::string& path, std::uint64_t max_bytes,
                                     const std::function<void()>& poll) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0) throw_file_error(path, "cannot open", errno);
  if (!S_ISDIR(status.st_mode)) {
    if (static_cast<std::uint64_t>(std::max<off_t>(status.st_size, 0)) > kMaxNamedBytes)
      throw_invalid(printable(path, 400) + " has more than 256 MiB; give a shorter text");
    return {read_file(path)};
  }
  std::vector<std::string> texts;
  std::uint64_t n_bytes = 0;
  for (const Candidate& candidate : candidates(path, poll)) {
    if (!texts.empty() && n_bytes + candidate.n_bytes > max_bytes) break;
    if (poll) poll();
    std::string text;
    try {
      text = read_file(candidate.path);
    } catch (const Error&) {
      continue;  // gone, or not for us: the others will do
    }
    if (!is_text(text)) continue;
    n_bytes += text.size();
    texts.push_back(std::move(text));
  }
  if (texts.empty()) {
    throw_invalid(printable(path, 400) +
                  " has no file to look matches up in; expected UTF-8 text of at most 1 MiB, not "
                  "hidden");
  }
  return texts;
}

}  // namespace specdec
