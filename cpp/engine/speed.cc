#include "engine/speed.h"

#include <algorithm>
#include <cstdio>

namespace specdec {
namespace {

template <typename... Values>
std::string format(const char* pattern, Values... values) {
  char text[128];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

// "91 85 80 %": of the tokens drafted at each position, how many were emitted.
std::string acceptance_by_position(const DecodeStats& stats) {
  constexpr std::size_t kMaxShown = 8;
  std::string out;
  const std::size_t n =
      std::min(stats.accepted_per_position.size(), stats.drafted_per_position.size());
  for (std::size_t i = 0; i < std::min(n, kMaxShown); ++i) {
    const auto drafted = static_cast<double>(stats.drafted_per_position[i]);
    if (drafted == 0) break;
    out += format("%.0f ", 100.0 * static_cast<double>(stats.accepted_per_position[i]) / drafted);
  }
  if (n > kMaxShown) out += "... ";
  return out.empty() ? out : out + "%";
}

std::string shares(const DecodeStats& stats) {
  if (stats.decode_ms <= 0) return {};
  const auto percent = [&stats](double ms) { return 100.0 * ms / stats.decode_ms; };
  return format("draft %.0f %%, verify %.0f %%, sample %.0f %%", percent(stats.draft_ms),
                percent(stats.verify_ms), percent(stats.sample_ms));
}

}  // namespace

bool is_read_from_memory(const ModelInfo& target) {
  constexpr std::uint64_t kInCaches = std::uint64_t{32} << 20;
  return target.bytes_per_step > kInCaches;
}

double bandwidth_share(const DecodeStats& stats, const ModelInfo& target, double bandwidth) {
  const auto n_passes = static_cast<double>(stats.rounds + stats.plain_steps);
  if (bandwidth <= 0 || stats.verify_ms <= 0 || n_passes == 0) return 0;
  return n_passes * static_cast<double>(target.bytes_per_step) / (stats.verify_ms / 1000.0) /
         bandwidth;
}

std::string speed_line(const DecodeStats& stats, const ModelInfo& target, double bandwidth) {
  const auto rate = stats.tokens_per_second();
  if (!rate) return "no tokens";
  std::string line = format("%lld %s, ", static_cast<long long>(stats.emitted),
                            stats.emitted == 1 ? "token" : "tokens") +
                     format("%.1f tokens/s, %.1f ms/token", *rate, 1000.0 / *rate);
  if (const double share = bandwidth_share(stats, target, bandwidth); share > 0) {
    line += format(", %.0f %% of %.1f GB/s", 100.0 * share, bandwidth / 1e9);
  }
  if (stats.prompt_tokens > 0) {
    line += format(" | prompt %lld", static_cast<long long>(stats.prompt_tokens));
    if (stats.reused_prompt_tokens > 0) {
      line += format(" (%lld known)", static_cast<long long>(stats.reused_prompt_tokens));
    }
    line += format(" in %.0f ms", stats.prompt_ms);
  }
  if (const std::int64_t n = stats.reread_tokens + stats.draft_reread_tokens; n > 0)
    line += format(" | no cache: %lld read again", static_cast<long long>(n));
  line += " | speculation " + stats.speculation;
  if (const auto mean = stats.mean_acceptance_length()) {
    line += format(": %.2f tokens/round", *mean);
    const std::string positions = acceptance_by_position(stats);
    if (!positions.empty()) line += ", accepted " + positions;
  }
  const std::string time = shares(stats);
  if (!time.empty()) line += " | " + time;
  if (stats.device_ms > 0) line += format(" | GPU busy %.0f ms", stats.device_ms);
  return line;
}

}  // namespace specdec
