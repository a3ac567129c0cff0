#include "engine/request_parts.h"

#include <limits>
#include <string>
#include <utility>

#include "base/error.h"
#include "engine/text_memory.h"
#include "tokenizer/tokenizer.h"

namespace specdec {

std::vector<TokenId> prompt_tokens(const LoadedModel& target, const GenerateRequest& request,
                                   const std::function<void()>& poll) {
  if (!request.prompt_ids.empty()) {
    if (!request.pieces.empty() || !request.prompt.empty()) {
      throw_invalid("give prompt_ids, pieces or prompt, not several of them");
    }
    return request.prompt_ids;
  }
  return target.encode(request.pieces.empty()
                           ? std::vector<PromptPiece>{{request.prompt, request.parse_special}}
                           : request.pieces,
                       request.add_bos, poll);
}

DecodeRequest decode_request(const LoadedModel& target, const SessionOptions& options,
                             const GenerateRequest& request, const std::function<void()>& poll) {
  DecodeRequest out;
  out.prompt = prompt_tokens(target, request, poll);
  if (request.max_tokens < -1) {
    throw_invalid("max_tokens must be >= 0, or -1 for no limit, got " +
                  std::to_string(request.max_tokens));
  }
  if (request.max_tokens >= 0) out.max_tokens = request.max_tokens;
  out.sampling = request.sampling;
  for (const TokenId token : target.tokenizer().suppressed_ids())
    out.sampling.logit_bias.emplace_back(token, -std::numeric_limits<float>::infinity());
  const auto& eog = target.tokenizer().eog_ids();
  out.eog.assign(eog.begin(), eog.end());
  out.ignore_eos = request.ignore_eos;
  out.stop = request.stop;
  if (request.n_logprobs >= 0) out.n_logprobs = request.n_logprobs;
  out.verifier = options.verifier;
  if (options.memory != nullptr && request.remember)
    out.memory_key = TextMemory::key_of(request.memory_key);
  out.constraint = request.constraint.get();
  out.speculate = request.speculate;
  return out;
}

void put_result(DecodeResult decoded, GenerateResult& result) {
  result.token_ids = std::move(decoded.token_ids);
  result.from_draft.assign(decoded.from_draft.begin(), decoded.from_draft.end());
  result.finish_reason = to_string(decoded.finish_reason);
  if (decoded.stop_token >= 0) result.stop_reason = "eos";
  if (!decoded.stop_string.empty()) result.stop_reason = decoded.stop_string;
  result.logprobs = std::move(decoded.logprobs);
  result.n_reused_tokens = static_cast<int>(decoded.stats.reused_prompt_tokens);
  result.stats = std::move(decoded.stats);
}

}  // namespace specdec
