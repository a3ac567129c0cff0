#include <pybind11/numpy.h>

#include "base/rng.h"
#include "decode_bindings.h"
#include "decode_convert.h"
#include "sampling/fixed_math.h"
#include "sampling/gumbel.h"
#include "sampling/logprobs.h"
#include "sampling/warp.h"

namespace py = pybind11;
using namespace specdec;
using specdec::testing::to_params;

namespace {

using FloatRow = py::array_t<float, py::array::c_style | py::array::forcecast>;
using DoubleRow = py::array_t<double, py::array::c_style | py::array::forcecast>;

std::span<const float> view(const FloatRow& row) {
  return {row.data(), static_cast<std::size_t>(row.size())};
}

DoubleRow map(const DoubleRow& x, double (*f)(double)) {
  DoubleRow y(x.size());
  for (py::ssize_t i = 0; i < x.size(); ++i) y.mutable_data()[i] = f(x.data()[i]);
  return y;
}

// Every token's noise, no pruning: what gumbel_argmax must equal.
TokenId slow_gumbel_argmax(const Distribution& d, std::uint64_t seed, std::uint64_t position) {
  TokenId best = -1;
  double best_score = 0.0;
  for (std::size_t i = 0; i < d.size(); ++i) {
    const double score = d.log_weights()[i] + gumbel_noise(seed, position, d.token(i));
    if (best < 0 || score > best_score) {
      best = d.token(i);
      best_score = score;
    }
  }
  return best;
}

}  // namespace

void bind_sampling(py::module_& m) {
  m.def("validate_params", [](const py::dict& params) { to_params(params).validate(); });
  // -> (tokens, probabilities) over the support.
  m.def("warp", [](const FloatRow& logits, const py::dict& params,
                   const std::vector<TokenId>& prefix, std::uint64_t position) {
    const Distribution d = warp(view(logits), to_params(params), prefix, position);
    std::vector<TokenId> tokens(d.size());
    for (std::size_t i = 0; i < d.size(); ++i) tokens[i] = d.token(i);
    return py::make_tuple(tokens, std::vector<double>(d.probs().begin(), d.probs().end()));
  });
  m.def("adjusted_logits",
        [](const FloatRow& logits, const py::dict& params, const std::vector<TokenId>& prefix) {
          return adjusted_logits(view(logits), to_params(params), prefix);
        });
  m.def("top_k_tokens",
        [](const FloatRow& logits, int k) { return top_k_tokens(view(logits), k); });
  m.def("token_logprobs", [](const FloatRow& logits, TokenId token, int n_top) {
    const TokenLogprobs r = token_logprobs(view(logits), token, n_top);
    return py::make_tuple(r.token, r.logprob, r.top);
  });
  m.def("gumbel_noise", &gumbel_noise);
  m.def("gaussian_noise", &gaussian_noise);
  m.def("gumbel_bounds", [] { return py::make_tuple(kGumbelMin, kGumbelMax); });
  // -> (fast, slow) choice of a warped row.
  m.def("gumbel_argmax", [](const FloatRow& logits, const py::dict& params, std::uint64_t seed,
                            std::uint64_t position) {
    const Distribution d = warp(view(logits), to_params(params), {}, position);
    return py::make_tuple(gumbel_argmax(d, seed, position), slow_gumbel_argmax(d, seed, position));
  });
  m.def("gumbel_counts", [](const std::vector<double>& probs, std::uint64_t seed, int n) {
    const Distribution d = Distribution::from_probs(probs);
    std::vector<int> counts(probs.size());
    for (int i = 0; i < n; ++i) {
      ++counts[static_cast<std::size_t>(gumbel_argmax(d, seed, static_cast<std::uint64_t>(i)))];
    }
    return counts;
  });
  m.def("draw_counts", [](const std::vector<double>& weights, std::uint64_t seed, int n) {
    std::vector<int> counts(weights.size());
    for (int i = 0; i < n; ++i) {
      RngChance chance(seed, static_cast<std::uint64_t>(i), 0);
      ++counts[chance.draw(std::span<const double>(weights))];
    }
    return counts;
  });
  m.def("residual", [](const std::vector<double>& target, const std::vector<TokenId>& draft_tokens,
                       const std::vector<double>& draft_log_weights) {
    return residual_weights(Distribution::from_probs(target),
                            Distribution::sparse(draft_tokens, draft_log_weights));
  });
  m.def("fixed_log", [](const DoubleRow& x) { return map(x, fixed_log); });
  m.def("fixed_exp", [](const DoubleRow& x) { return map(x, fixed_exp); });
  m.def("fixed_cos_turns", [](const DoubleRow& x) { return map(x, fixed_cos_turns); });
}
