#include "sampling/warp.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>

#include "base/error.h"
#include "sampling/fixed_math.h"
#include "sampling/gumbel.h"
#include "sampling/logprobs.h"
#include "sampling/row_buffers.h"
#include "sampling/row_loops.h"

namespace specdec {
namespace {

struct Survivor {
  TokenId token;
  double log_weight;
};

bool better(const Survivor& a, const Survivor& b) {
  return a.log_weight > b.log_weight || (a.log_weight == b.log_weight && a.token < b.token);
}

void apply_penalties(std::span<float> row, const SamplingParams& params,
                     std::span<const TokenId> prefix) {
  std::size_t n = prefix.size();
  if (params.penalty_last_n >= 0) n = std::min(n, static_cast<std::size_t>(params.penalty_last_n));
  std::vector<TokenId> seen(prefix.end() - static_cast<std::ptrdiff_t>(n), prefix.end());
  std::sort(seen.begin(), seen.end());
  const auto repetition = static_cast<float>(params.repetition_penalty);
  const auto presence = static_cast<float>(params.presence_penalty);
  const auto frequency = static_cast<float>(params.frequency_penalty);
  for (std::size_t i = 0; i < seen.size();) {
    std::size_t end = i;
    while (end < seen.size() && seen[end] == seen[i]) ++end;
    const auto id = static_cast<std::size_t>(seen[i]);
    if (id < row.size()) {
      float& logit = row[id];
      // A tiny penalty must not make an infinity, which no sampling can make sense of.
      logit = logit > 0.0F ? std::min(logit / repetition, std::numeric_limits<float>::max())
                           : logit * repetition;
      logit -= presence + static_cast<float>(end - i) * frequency;
    }
    i = end;
  }
}

// Best entry, the first of equal ones; refuses rows that sampling cannot make sense of.
std::size_t checked_argmax(std::span<const float> row) {
  const auto [max, has_nan] = row_top(row);
  if (has_nan || !std::isfinite(max)) {
    throw Error(ErrorCode::kNumerical,
                "the logits of a row of " + std::to_string(row.size()) +
                    (has_nan ? " tokens contain NaN" : " tokens have no finite maximum"));
  }
  return static_cast<std::size_t>(std::find(row.begin(), row.end(), max) - row.begin());
}

// Shortest head of the survivors, best first, whose probability reaches top_p.
void keep_top_p(std::vector<Survivor>& survivors, double top_p, double mass) {
  std::make_heap(survivors.begin(), survivors.end(),
                 [](const Survivor& a, const Survivor& b) { return better(b, a); });
  double cumulative = 0.0;
  auto end = survivors.end();
  while (end != survivors.begin()) {
    std::pop_heap(survivors.begin(), end,
                  [](const Survivor& a, const Survivor& b) { return better(b, a); });
    --end;
    cumulative += fixed_exp(end->log_weight);
    if (cumulative >= top_p * mass) break;
  }
  survivors.erase(survivors.begin(), end);
}

// visit(i) for each value that is at least `floor`.
template <class Real, class Visit>
void for_each_at_least(std::span<const Real> values, Real floor, Visit&& visit) {
  for (std::size_t first = 0; first < values.size(); first += kMaskBits) {
    const auto group = values.subspan(first, std::min(kMaskBits, values.size() - first));
    for_each_bit(at_least(group, floor), [&](std::size_t i) { visit(first + i); });
  }
}

// A float a little below a + b, whatever was rounded.
float below_sum(double a, double b) {
  return static_cast<float>(a + b - 1e-6 * (std::abs(a) + std::abs(b)) - 1e-30);
}

// Everything that can be in the nucleus: tokens below (1 - top_p) / vocab together hold less than
// 1 - top_p (halved to be safe from rounding), so none of them is.
std::vector<Survivor> nucleus_candidates(std::span<const double> log_weights, double top_p,
                                         double& mass) {
  mass = exp_sum(log_weights);
  const double least = 0.5 * (1.0 - top_p) / static_cast<double>(log_weights.size()) * mass;
  const double floor = fixed_log(least);
  std::vector<Survivor> survivors;
  for_each_at_least(log_weights, floor, [&](std::size_t i) {
    survivors.push_back({static_cast<TokenId>(i), log_weights[i]});
  });
  return survivors;
}

Distribution to_distribution(std::vector<Survivor>& survivors) {
  std::sort(survivors.begin(), survivors.end(),
            [](const Survivor& a, const Survivor& b) { return a.token < b.token; });
  std::vector<TokenId> tokens(survivors.size());
  std::vector<double> log_weights(survivors.size());
  for (std::size_t i = 0; i < survivors.size(); ++i) {
    tokens[i] = survivors[i].token;
    log_weights[i] = survivors[i].log_weight;
  }
  return Distribution::sparse(std::move(tokens), std::move(log_weights));
}

// The filters behind top-k, and noise. Weights are relative to the best token's.
Distribution filter(std::vector<Survivor> survivors, double mass, const SamplingParams& params,
                    std::uint64_t position) {
  if (params.top_p < 1.0) keep_top_p(survivors, params.top_p, mass);
  if (params.min_p > 0.0) {
    const double floor =
        fixed_log(params.min_p);  // the best token survives every filter and has weight 0
    std::erase_if(survivors, [&](const Survivor& s) { return s.log_weight < floor; });
  }
  if (params.noise_scale > 0.0) {
    for (Survivor& s : survivors) {
      s.log_weight += params.noise_scale * gaussian_noise(params.seed, position, s.token);
    }
  }
  return to_distribution(survivors);
}

}  // namespace

std::vector<float> adjusted_logits(std::span<const float> logits, const SamplingParams& params,
                                   std::span<const TokenId> prefix) {
  std::vector<float> row(logits.begin(), logits.end());
  for (const auto& [token, bias] : params.logit_bias) {
    if (static_cast<std::size_t>(token) < row.size()) row[static_cast<std::size_t>(token)] += bias;
  }
  if (params.has_penalties()) apply_penalties(row, params, prefix);
  return row;
}

Distribution warp(std::span<const float> logits, const SamplingParams& params,
                  std::span<const TokenId> prefix, std::uint64_t position) {
  std::vector<float> adjusted;
  if (!params.logit_bias.empty() || params.has_penalties()) {
    adjusted = adjusted_logits(logits, params, prefix);
    logits = adjusted;
  }
  const std::size_t best = checked_argmax(logits);
  if (params.greedy()) return Distribution::one_hot(static_cast<TokenId>(best));

  // Relative to the best, so that no temperature can overflow.
  const auto max = static_cast<double>(logits[best]);
  const double temperature = params.temperature;
  const auto log_weight = [&](float logit) {
    return (static_cast<double>(logit) - max) / temperature;
  };

  const bool top_k_on = params.top_k > 0 && static_cast<std::size_t>(params.top_k) < logits.size();
  const bool top_p_on = params.top_p < 1.0;
  const bool min_p_on = params.min_p > 0.0;
  std::vector<Survivor> survivors;
  double mass = 0.0;  // sum of the survivors' weights, for top-p
  if (top_k_on) {
    for (const TokenId token : top_k_tokens(logits, params.top_k)) {
      survivors.push_back({token, log_weight(logits[static_cast<std::size_t>(token)])});
      mass += fixed_exp(survivors.back().log_weight);
    }
  } else if (top_p_on || !min_p_on) {
    std::vector<double> row = take_row_buffer(logits.size());
    log_weights_of(logits, max, temperature, row.data());
    if (!top_p_on) {  // no filter at all: the whole vocabulary survives
      if (params.noise_scale <= 0.0) return Distribution::dense(std::move(row), best);
      for (std::size_t i = 0; i < row.size(); ++i) {
        row[i] +=
            params.noise_scale * gaussian_noise(params.seed, position, static_cast<TokenId>(i));
      }
      return Distribution::dense(std::move(row));
    }
    survivors = nucleus_candidates(row, params.top_p, mass);
  } else {
    const double floor = fixed_log(params.min_p);
    for_each_at_least(logits, below_sum(max, temperature * floor), [&](std::size_t i) {
      const double lw = log_weight(logits[i]);
      if (lw >= floor) survivors.push_back({static_cast<TokenId>(i), lw});
    });
  }
  return filter(std::move(survivors), mass, params, position);
}

Distribution warp_top(std::span<const TopToken> top, const SamplingParams& params,
                      std::uint64_t position) {
  if (top.empty()) {
    throw Error(ErrorCode::kNumerical, "a row of logits has no finite maximum");
  }
  if (params.greedy()) return Distribution::one_hot(top[0].token);
  std::vector<Survivor> survivors;
  double mass = 0.0;
  for (const TopToken& t : top) {
    const double log_weight =
        (static_cast<double>(t.logit) - static_cast<double>(top[0].logit)) / params.temperature;
    survivors.push_back({t.token, log_weight});
    mass += fixed_exp(log_weight);
  }
  return filter(std::move(survivors), mass, params, position);
}

}  // namespace specdec
