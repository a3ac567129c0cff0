#include "engine/calibration.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <locale>
#include <optional>
#include <sstream>
#include <string_view>
#include <thread>

#include "base/error.h"
#include "base/open_file.h"
#include "base/system.h"
#include "decode/drafter.h"
#include "decode/stats.h"
#include "engine/cache_folder.h"

namespace specdec {
namespace {

constexpr const char* kHeader = "specdec calibration 5";
constexpr double kTargetBudgetMs = 330.0;  // after the first look at every row count
constexpr double kDraftBudgetMs = 100.0;
constexpr int kMostRounds = 5;
constexpr off_t kMostBytes = 1 << 16;  // of the file
constexpr double kMostMs = 1e9;        // gained or lost by speculation so far

std::uint64_t fnv1a(std::span<const std::byte> bytes, std::uint64_t hash) {
  for (const std::byte b : bytes) {
    hash ^= std::to_integer<std::uint64_t>(b);
    hash *= 0x100000001B3ULL;
  }
  return hash;
}

std::uint64_t fnv1a(const std::string& text, std::uint64_t hash) {
  return fnv1a(std::as_bytes(std::span(text.data(), text.size())), hash);
}

// Enough of a file to tell models apart: its size, beginning and end.
std::uint64_t add_model(const LoadedModel& model, std::uint64_t hash) {
  constexpr std::size_t kPart = 4096;
  const std::span<const std::byte> bytes = model.file().bytes();
  const std::size_t part = std::min(kPart, bytes.size());
  hash = fnv1a(std::to_string(model.file().total_size()), hash);
  hash = fnv1a(bytes.first(part), hash);
  hash = fnv1a(bytes.last(part), hash);
  std::string where = model.model().backend()->info().description +
                      std::to_string(model.model().memory().weights_bytes);
  if (const DeviceBackend* gpu = model.gpu().get()) {
    where += gpu->info().description + std::to_string(model.info().n_gpu_layers);
  }
  return fnv1a(where, hash);
}

std::string machine() {
  return std::to_string(std::thread::hardware_concurrency()) + processor_name();
}

// The text of a small regular file; nothing otherwise. Never waits, as opening a FIFO would.
std::optional<std::string> read_small(const std::string& path) {
  const int fd = open_uninterrupted(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return std::nullopt;
  std::string text;
  struct stat status = {};
  if (::fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size <= kMostBytes) {
    text.resize(static_cast<std::size_t>(status.st_size));
    const ssize_t n = ::read(fd, text.data(), text.size());
    text.resize(static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
  }
  ::close(fd);
  return text;
}

// Milliseconds of passes behind an empty cache: the least of several, because others use the
// machine too.
// n_layers > 0: of that many first layers and the head, as self-speculation runs them.
std::vector<std::pair<int, double>> time_passes(ModelScorer& scorer, const std::vector<int>& rows,
                                                double budget_ms, const std::function<void()>& poll,
                                                const Mixture& mixture, int n_layers = 0,
                                                std::span<const std::int32_t> head_blocks = {}) {
  const int n_ctx = scorer.n_ctx();
  std::vector<std::pair<int, double>> best;
  for (const int n : rows) {
    if (n <= n_ctx) best.emplace_back(n, 0.0);
  }
  double spent = 0.0;
  const auto pass = [&](int n) {
    poll();
    // Tokens that differ, so that rows of a mixture choose experts as if independently.
    std::vector<TokenId> tokens;
    for (std::int64_t i = 0; i < n; ++i)
      tokens.push_back(static_cast<TokenId>((1 + 7919 * i) % scorer.vocab_size()));
    double ms = 0.0;
    {
      const ScopedMs timer(ms);
      const Batch batch = {.tokens = tokens,
                           .parents = {},
                           .first_output_row = n > 16 ? n - 1 : 0,
                           .output = RowOutput::kArgmax,
                           .head_blocks = head_blocks};
      if (n_layers > 0) {
        scorer.draft(batch, n_layers);
      } else {
        scorer.forward(batch);
      }
    }
    const Reading reading = scorer.reading();
    scorer.truncate(0);
    spent += ms;
    if (n_layers > 0 || reading.n_rows != n) return ms;
    return ms * mixture.independent(n) / reading.weights;
  };
  (void)pass(1);  // touches memory for the first time
  for (int round = 0; round < kMostRounds; ++round) {
    for (std::size_t i = 0; i < best.size(); ++i) {
      // A large model: the rest is extrapolated.
      if (round == 0 && i >= 2 && spent > budget_ms) {
        best.resize(i);
        return best;
      }
      if (round > 0 && spent > budget_ms) return best;
      const double ms = pass(best[i].first);
      if (round == 0 || ms < best[i].second) best[i].second = ms;
    }
  }
  return best;
}

// Times passes of a drafter; nothing where they fail and it alone would end: it drafts unmeasured,
// or fails again and is left out.
std::vector<std::pair<int, double>> time_drafter(
    TokenScorer& scorer, const std::function<std::vector<std::pair<int, double>>()>& time) {
  try {
    return time();
  } catch (const Error& error) {
    if (!is_survivable(error.code())) throw;
    scorer.truncate(0);
    return {};
  }
}

bool read_passes(std::istream& in, std::vector<std::pair<int, double>>& out) {
  int n = 0;
  if (!(in >> n) || n < 0 || n > 64) return false;
  for (int i = 0; i < n; ++i) {
    int rows = 0;
    double ms = 0.0;
    if (!(in >> rows >> ms) || rows < 1 || !(ms > 0.0) || ms > 1e7) return false;
    out.emplace_back(rows, ms);
  }
  return true;
}

void write_passes(std::ostream& out, const std::vector<std::pair<int, double>>& passes) {
  out << passes.size();
  for (const auto& [rows, ms] : passes) out << ' ' << rows << ' ' << ms;
  out << '\n';
}

}  // namespace

CalibrationFile::CalibrationFile(const LoadedModel& target, const LoadedModel* draft,
                                 KvType kv_type, std::size_t n_head_blocks)
    : folder_(cache_folder("SPECDEC_CALIBRATION", "calibration")) {
  std::uint64_t hash = fnv1a(machine(), 0xCBF29CE484222325ULL);
  hash = add_model(target, hash);
  if (draft != nullptr) hash = add_model(*draft, hash);
  hash = fnv1a(kv_type_name(kv_type), hash);
  hash = fnv1a(std::to_string(n_head_blocks), hash);
  char name[32];
  std::snprintf(name, sizeof(name), "%016llx.txt", static_cast<unsigned long long>(hash));
  path_ = folder_ + "/" + name;
}

bool CalibrationFile::read(Calibration& out) const {
  if (folder_.empty()) return false;
  const std::optional<std::string> text = read_small(path_);
  if (!text) return false;
  std::istringstream in(*text);
  in.imbue(std::locale::classic());
  std::string header;
  Calibration found;
  if (!std::getline(in, header) || header != kHeader || !read_passes(in, found.target) ||
      !read_passes(in, found.draft) || !(in >> found.n_draft_layers) ||
      !read_passes(in, found.layers) || !(in >> found.state.credit_ms >> found.state.plain_ms)) {
    return false;
  }
  if (found.target.empty() || found.target[0].first != 1) return false;
  const ControllerState& state = found.state;
  if (!(state.plain_ms >= 0.0 && state.plain_ms <= kMostMs &&
        std::fabs(state.credit_ms) <= kMostMs))
    return false;
  out = std::move(found);
  return true;
}

void CalibrationFile::write(const Calibration& calibration) const noexcept {
  if (folder_.empty()) return;
  try {
    std::ostringstream out;
    out.imbue(std::locale::classic());
    out.precision(9);
    out << kHeader << '\n';
    write_passes(out, calibration.target);
    write_passes(out, calibration.draft);
    out << calibration.n_draft_layers << ' ';
    write_passes(out, calibration.layers);
    out << calibration.state.credit_ms << ' ' << calibration.state.plain_ms << '\n';
    std::filesystem::create_directories(folder_);
    // Threads, processes and machines may write it at the same time: each a file of its own, and
    // whole files only.
    std::string temporary = path_ + ".XXXXXX";
    const int fd = ::mkostemp(temporary.data(), O_CLOEXEC);
    if (fd < 0) return;
    const bool written = write_all(fd, out.str()) && ::fchmod(fd, 0644) == 0;
    if (::close(fd) != 0 || !written || std::rename(temporary.c_str(), path_.c_str()) != 0)
      ::unlink(temporary.c_str());
  } catch (...) {  // no memory, a file in place of the folder: measured again next time
  }
}

std::vector<std::pair<int, double>> time_head(HeadScorer& head,
                                              std::span<const std::int32_t> head_blocks,
                                              const std::function<void()>& poll) {
  const auto pass = [&](int n) {
    poll();
    const auto n_rows = static_cast<std::size_t>(n);
    const std::vector<TokenId> tokens(n_rows, 1);
    const std::vector<float> taps(n_rows * head.n_tapped(), 0.1F);
    std::vector<float> features(n_rows * head.n_features(), 0.1F);
    double ms = 0.0;
    {
      const ScopedMs timer(ms);
      if (n > 1) head.fuse(taps, n, features);
      head.forward({.tokens = tokens,
                    .first_output_row = n - 1,
                    .output = RowOutput::kArgmax,
                    .head_blocks = head_blocks,
                    .hidden = features,
                    .keep_hidden = true});
    }
    head.truncate(0);
    return ms;
  };
  return time_drafter(head, [&] {
    std::vector<std::pair<int, double>> best;
    (void)pass(1);  // touches memory for the first time
    double spent = 0.0;
    for (int round = 0; round < kMostRounds && spent < kDraftBudgetMs; ++round) {
      std::size_t at = 0;
      for (const int n : {1, 2, 8, 64}) {
        if (n > head.n_ctx()) break;
        const double ms = pass(n);
        spent += ms;
        if (round == 0) best.emplace_back(n, ms);
        best[at].second = std::min(best[at].second, ms);
        ++at;
      }
    }
    return best;
  });
}

Calibration calibrate(ModelScorer& target, ModelScorer* draft,
                      std::span<const std::int32_t> head_blocks, int n_draft_layers,
                      std::span<const std::int32_t> layers_head_blocks, const Mixture& mixture,
                      const std::function<void()>& poll) {
  Calibration result;
  const ScopedMs timer(result.measured_ms);
  result.target = time_passes(target, {1, 2, 4, 8, 16}, kTargetBudgetMs, poll, mixture);
  if (draft != nullptr) {
    result.draft = time_drafter(*draft, [&] {
      return time_passes(*draft, {1, 2, 8, 64}, kDraftBudgetMs, poll, {}, 0, head_blocks);
    });
  }
  if (n_draft_layers > 0) {
    result.layers = time_drafter(target, [&] {
      return time_passes(target, {1, 2}, kDraftBudgetMs, poll, {}, n_draft_layers,
                         layers_head_blocks);
    });
    if (!result.layers.empty()) result.n_draft_layers = n_draft_layers;
  }
  return result;
}

}  // namespace specdec
