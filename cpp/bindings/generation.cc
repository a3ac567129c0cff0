// What goes into a generation and what comes out, field by field.
#include "base/option_spec.h"
#include "bindings/common.h"
#include "engine/check_output.h"
#include "engine/session.h"

namespace specdec::bindings {
namespace {

// (logprob, [(token, logprob), ...]) per position.
using LogprobList = std::vector<std::pair<double, std::vector<std::pair<TokenId, double>>>>;

LogprobList logprob_list(const std::vector<TokenLogprobs>& positions) {
  LogprobList result;
  for (const TokenLogprobs& position : positions) {
    result.emplace_back(position.logprob, position.top);
  }
  return result;
}

void bind_sampling(py::module_& m) {
  py::class_<SamplingParams>(m, "SamplingParams", py::module_local())
      .def(py::init<>())
      .def_readwrite("temperature", &SamplingParams::temperature,
                     opt::kSamplingParamsTemperature.doc)
      .def_readwrite("top_k", &SamplingParams::top_k, opt::kSamplingParamsTopK.doc)
      .def_readwrite("top_p", &SamplingParams::top_p, opt::kSamplingParamsTopP.doc)
      .def_readwrite("min_p", &SamplingParams::min_p, opt::kSamplingParamsMinP.doc)
      .def_readwrite("noise_scale", &SamplingParams::noise_scale,
                     opt::kSamplingParamsNoiseScale.doc)
      .def_readwrite("seed", &SamplingParams::seed, opt::kSamplingParamsSeed.doc)
      .def_readwrite("repetition_penalty", &SamplingParams::repetition_penalty,
                     opt::kSamplingParamsRepetitionPenalty.doc)
      .def_readwrite("presence_penalty", &SamplingParams::presence_penalty,
                     opt::kSamplingParamsPresencePenalty.doc)
      .def_readwrite("frequency_penalty", &SamplingParams::frequency_penalty,
                     opt::kSamplingParamsFrequencyPenalty.doc)
      .def_readwrite("penalty_last_n", &SamplingParams::penalty_last_n,
                     opt::kSamplingParamsPenaltyLastN.doc)
      .def_readwrite("logit_bias", &SamplingParams::logit_bias, opt::kSamplingParamsLogitBias.doc);
}

void bind_request(py::module_& m) {
  py::class_<GenerateRequest>(m, "GenerateRequest", py::module_local())
      .def(py::init<>())
      .def_readwrite("prompt_ids", &GenerateRequest::prompt_ids)
      .def(
          "set_prompt",
          [](GenerateRequest& request, const py::bytes& text) { request.prompt = text; },
          py::arg("text"))
      .def_readwrite("parse_special", &GenerateRequest::parse_special, opt::kCallParseSpecial.doc)
      .def_readwrite("add_bos", &GenerateRequest::add_bos)
      .def_readwrite("max_tokens", &GenerateRequest::max_tokens, opt::kCallMaxTokens.doc)
      .def_readwrite("sampling", &GenerateRequest::sampling)
      .def_readwrite("stop", &GenerateRequest::stop, opt::kCallStop.doc)
      .def_readwrite("ignore_eos", &GenerateRequest::ignore_eos, opt::kCallIgnoreEos.doc)
      .def_readwrite("speculate", &GenerateRequest::speculate, opt::kCallSpeculate.doc)
      .def_readwrite("remember", &GenerateRequest::remember, opt::kCallRemember.doc)
      .def_property(  // bytes: any text of Python's is a name, with lone surrogates, too
          "memory_key",
          [](const GenerateRequest& request) { return py::bytes(request.memory_key); },
          [](GenerateRequest& request, const py::bytes& key) { request.memory_key = key; },
          opt::kCallMemoryKey.doc)
      .def(
          "set_matcher",
          [](GenerateRequest& request, py::object matcher) {
            request.constraint = matcher_constraint(std::move(matcher));
          },
          py::arg("matcher"), "A grammar's matcher, for this request alone.")
      .def_readwrite("n_logprobs", &GenerateRequest::n_logprobs, opt::kCallLogprobs.doc)
      .def_readwrite("render_special", &GenerateRequest::render_special,
                     opt::kCallRenderSpecial.doc);
}

void bind_stats(py::module_& m) {
  py::class_<DecodeStats>(m, "DecodeStats", py::module_local())
      .def_readonly("emitted", &DecodeStats::emitted)
      .def_readonly("rounds", &DecodeStats::rounds)
      .def_readonly("plain_steps", &DecodeStats::plain_steps)
      .def_readonly("drafted", &DecodeStats::drafted)
      .def_readonly("accepted", &DecodeStats::accepted)
      .def_readonly("accepted_cut", &DecodeStats::accepted_cut)
      .def_readonly("cut", &DecodeStats::cut)
      .def_readonly("drafted_per_position", &DecodeStats::drafted_per_position)
      .def_readonly("accepted_per_position", &DecodeStats::accepted_per_position)
      .def_readonly("accepted_histogram", &DecodeStats::accepted_histogram)
      .def_property_readonly("acceptance_rate", &DecodeStats::acceptance_rate)
      .def_property_readonly("mean_acceptance_length", &DecodeStats::mean_acceptance_length)
      .def_readonly("candidate_positions", &DecodeStats::candidate_positions)
      .def_property_readonly("candidate_acceptance", &DecodeStats::candidate_acceptance)
      .def_property_readonly("in_set", &DecodeStats::in_set)
      .def_property_readonly("tokens_per_second", &DecodeStats::tokens_per_second)
      .def_readonly("prompt_tokens", &DecodeStats::prompt_tokens)
      .def_readonly("reused_prompt_tokens", &DecodeStats::reused_prompt_tokens)
      .def_readonly("reread_tokens", &DecodeStats::reread_tokens)
      .def_readonly("draft_reread_tokens", &DecodeStats::draft_reread_tokens)
      .def_readonly("total_ms", &DecodeStats::total_ms)
      .def_readonly("calibration_ms", &DecodeStats::calibration_ms)
      .def_readonly("device_ms", &DecodeStats::device_ms)
      .def_readonly("prompt_ms", &DecodeStats::prompt_ms)
      .def_readonly("decode_ms", &DecodeStats::decode_ms)
      .def_readonly("draft_ms", &DecodeStats::draft_ms)
      .def_readonly("verify_ms", &DecodeStats::verify_ms)
      .def_readonly("sample_ms", &DecodeStats::sample_ms)
      .def_readonly("time_to_first_token_ms", &DecodeStats::time_to_first_token_ms)
      .def_readonly("reproducible", &DecodeStats::reproducible)
      .def_readonly("speculation", &DecodeStats::speculation)
      .def_readonly("note", &DecodeStats::note);
}

void bind_output(py::module_& m) {
  py::class_<OutputChunk>(m, "OutputChunk", py::module_local())
      .def_property_readonly("text", [](const OutputChunk& chunk) { return to_text(chunk.text); })
      .def_readonly("token_ids", &OutputChunk::token_ids)
      .def_readonly("from_draft", &OutputChunk::from_draft)
      .def_property_readonly("logprobs",
                             [](const OutputChunk& chunk) { return logprob_list(chunk.logprobs); });

  py::class_<GenerateResult>(m, "GenerateResult", py::module_local())
      .def_property_readonly("text", [](const GenerateResult& r) { return to_text(r.text); })
      .def_readonly("token_ids", &GenerateResult::token_ids)
      .def_readonly("from_draft", &GenerateResult::from_draft)
      .def_readonly("finish_reason", &GenerateResult::finish_reason)
      .def_property_readonly("stop_reason",
                             [](const GenerateResult& r) { return to_text(r.stop_reason); })
      .def_property_readonly("logprobs",
                             [](const GenerateResult& r) { return logprob_list(r.logprobs); })
      .def_readonly("n_prompt_tokens", &GenerateResult::n_prompt_tokens)
      .def_readonly("seed", &GenerateResult::seed)
      .def_readonly("stats", &GenerateResult::stats);

  py::class_<OutputCheck>(m, "OutputCheck", py::module_local())
      .def_readonly("identical", &OutputCheck::identical)
      .def_readonly("cancelled", &OutputCheck::cancelled)
      .def_property_readonly("difference",
                             [](const OutputCheck& check) { return to_text(check.difference); })
      .def_readonly("first_difference", &OutputCheck::first_difference)
      .def_readonly("plain", &OutputCheck::plain);
}

}  // namespace

void bind_generation(py::module_& m) {
  bind_sampling(m);
  bind_request(m);
  bind_stats(m);
  bind_output(m);
}

}  // namespace specdec::bindings
