// Figures of one request. Always: emitted = accepted + rounds + plain_steps - cut.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace specdec {

struct DecodeStats {
  std::int64_t rounds = 0;        // target passes that verified a draft
  std::int64_t plain_steps = 0;   // target passes without a draft
  std::int64_t drafted = 0;       // tokens proposed
  std::int64_t accepted = 0;      // drafted tokens that were emitted
  std::int64_t accepted_cut = 0;  // drafted tokens the verifier accepted but a stop cut off
  std::int64_t emitted = 0;       // tokens in the result
  std::int64_t cut = 0;           // the target's own tokens (one a pass) that a stop cut off
  std::vector<std::int64_t>
      drafted_per_position;  // [longest draft]: tokens proposed at depth 1, 2, ...
  std::vector<std::int64_t> accepted_per_position;  // [longest draft]: of these, emitted
  std::vector<std::int64_t>
      accepted_histogram;  // [longest draft + 1]: rounds that emitted 0, 1, ... drafted tokens
  // Of verifiers that take candidates from the draft's top K, summed over positions.
  std::int64_t candidate_positions = 0;  // positions with candidates that were looked at
  double in_set_sum = 0.0;               // the target's probability of the draft's top K
  double candidate_hits = 0.0;           // tokens taken from the candidates
  std::int64_t prompt_tokens = 0;
  std::int64_t reused_prompt_tokens = 0;  // found in the target's cache
  // Without a cache: tokens that passes of the target and of the draft model read again.
  std::int64_t reread_tokens = 0;
  std::int64_t draft_reread_tokens = 0;
  double total_ms = 0.0;        // from the call to the last token
  double calibration_ms = 0.0;  // measuring both models before the first request; not in total_ms
  double prompt_ms = 0.0;       // the target's reading of the prompt (all but its last token)
  double decode_ms = 0.0;  // total - prompt: everything else, the draft's reading of the prompt too
  double draft_ms = 0.0;
  double verify_ms = 0.0;               // the target's passes
  double sample_ms = 0.0;               // warps, verification, stop checks
  double time_to_first_token_ms = 0.0;  // 0 when there is none
  // By the clock of the GPU that runs layers, of both models and of all sessions in that time.
  double device_ms = 0.0;
  // Whether the same request with the same seed gives the same tokens again: always at temperature
  // 0 and under `match`; else the tokens depend on the drafts, and these must not depend on the
  // clock or on earlier requests.
  bool reproducible = true;
  std::string speculation = "off: no drafter";  // "on" or "off: reason"
  std::string note;                             // what else the caller should know; often empty

  // 0/0 is empty.
  [[nodiscard]] std::optional<double> acceptance_rate() const {
    if (drafted == 0) return std::nullopt;
    return static_cast<double>(accepted) / static_cast<double>(drafted);
  }
  [[nodiscard]] std::optional<double> in_set() const {
    if (candidate_positions == 0) return std::nullopt;
    return in_set_sum / static_cast<double>(candidate_positions);
  }
  [[nodiscard]] std::optional<double> candidate_acceptance() const {
    if (candidate_positions == 0) return std::nullopt;
    return candidate_hits / static_cast<double>(candidate_positions);
  }
  [[nodiscard]] std::optional<double> mean_acceptance_length() const {
    if (rounds == 0) return std::nullopt;
    return 1.0 + static_cast<double>(accepted) / static_cast<double>(rounds);
  }
  [[nodiscard]] std::optional<double> tokens_per_second() const {
    if (emitted == 0 || decode_ms <= 0.0) return std::nullopt;
    return 1000.0 * static_cast<double>(emitted) / decode_ms;
  }
};

// Adds the time between construction and destruction to a figure.
class ScopedMs {
 public:
  explicit ScopedMs(double& total) : total_(total), start_(Clock::now()) {}
  ~ScopedMs() { total_ += since(start_); }
  ScopedMs(const ScopedMs&) = delete;
  ScopedMs& operator=(const ScopedMs&) = delete;

  using Clock = std::chrono::steady_clock;
  [[nodiscard]] static double since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  }

 private:
  double& total_;
  Clock::time_point start_;
};

// What happened to each generated token, from which the counts follow at the end: a stop string may
// cut tokens of rounds that are long over.
class TokenLedger {
 public:
  // A target pass with a draft of this many tokens (0: a plain step); tokens added next belong to
  // it. per_depth: tokens of the proposal at each depth.
  void begin_pass(int n_drafted, const std::vector<int>& per_depth);
  // draft_depth: 1, 2, ... along the accepted path, 0 for the target's own token.
  void add(int draft_depth) {
    tokens_.push_back({draft_depth, static_cast<int>(passes_.size()) - 1});
  }
  [[nodiscard]] std::size_t size() const { return tokens_.size(); }
  [[nodiscard]] bool from_draft(std::size_t i) const { return tokens_[i].draft_depth > 0; }
  // A token the verifier decided on in the current pass that was never added, behind a stop.
  void add_unused(int draft_depth) {
    unused_.push_back({draft_depth, static_cast<int>(passes_.size()) - 1});
  }
  // Fills the counts when the first n_kept tokens are the result.
  void count(std::size_t n_kept, DecodeStats& stats) const;

 private:
  struct Token {
    int draft_depth;
    int pass;
  };
  std::vector<Token> tokens_;
  std::vector<Token> unused_;
  std::vector<int> passes_;  // drafted tokens of each
  std::vector<std::int64_t> drafted_per_depth_;
};

}  // namespace specdec
