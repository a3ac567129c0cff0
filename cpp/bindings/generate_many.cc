// generate_many() as _core.generate_many.
#include "engine/generate_many.h"

#include "bindings/common.h"
#include "bindings/interrupts.h"
#include "bindings/native_call.h"

namespace specdec::bindings {
namespace {

using Alternatives = std::vector<std::pair<TokenId, double>>;
// (tokens, reason, [(logprob, alternatives)], hidden states) per prompt.
using Found = std::vector<
    std::tuple<std::vector<TokenId>, std::string, std::vector<std::pair<double, Alternatives>>,
               std::optional<HiddenStates>>>;

Found run(const ModelHandle& handle, std::vector<std::vector<TokenId>> prompts,
          std::vector<std::uint64_t> seeds, const SamplingParams& sampling,
          std::vector<int> max_tokens, bool ignore_eos, bool keep_eos, int n_logprobs,
          int n_parallel, int n_ctx, std::vector<std::int32_t> layers,
          const py::object& on_progress, bool poll_signals) {
  require_same_process();
  SignalPoll signals(poll_signals);
  ManyRequest request;
  request.prompts = std::move(prompts);
  request.seeds = std::move(seeds);
  request.sampling = sampling;
  request.max_tokens = std::move(max_tokens);
  request.ignore_eos = ignore_eos;
  request.keep_eos = keep_eos;
  request.n_logprobs = n_logprobs;
  request.n_parallel = n_parallel;
  request.n_ctx = n_ctx;
  request.layers = std::move(layers);
  request.should_cancel = [&] { return signals.interrupted(); };
  if (!on_progress.is_none()) {
    request.on_progress = [&](std::size_t n_done) {
      py::gil_scoped_acquire gil;
      on_progress(n_done, request.prompts.size());
    };
  }
  std::vector<ManyResult> results;
  {
    const NativeCall call;
    results = generate_many(*handle.model, request);
  }
  signals.rethrow();
  if (interpreter_exits()) signals.raise();
  Found found;
  for (ManyResult& result : results) {
    std::vector<std::pair<double, Alternatives>> logprobs;
    for (TokenLogprobs& position : result.logprobs) {
      logprobs.emplace_back(position.logprob, std::move(position.top));
    }
    std::optional<HiddenStates> states;
    if (!request.layers.empty()) states = std::move(result.hidden_states);
    found.emplace_back(std::move(result.token_ids), result.finish_reason, std::move(logprobs),
                       std::move(states));
  }
  return found;
}

}  // namespace

void bind_generate_many(py::module_& m) {
  m.def("generate_many", &run, py::arg("model"), py::kw_only(), py::arg("prompts"),
        py::arg("seeds"), py::arg("sampling"), py::arg("max_tokens"), py::arg("ignore_eos"),
        py::arg("keep_eos"), py::arg("n_logprobs"), py::arg("n_parallel"), py::arg("n_ctx"),
        py::arg("layers"), py::arg("on_progress"), py::arg("poll_signals"));
}

}  // namespace specdec::bindings
