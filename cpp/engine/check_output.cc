#include "engine/check_output.h"

#include <algorithm>

#include "base/error.h"
#include "decode/verifier.h"
#include "tokenizer/tokenizer.h"

namespace specdec {
namespace {

std::string describe(const LoadedModel& model, const std::vector<TokenId>& tokens,
                     std::size_t position) {
  if (position >= tokens.size()) return "the end";
  const TokenId token = tokens[position];
  return "token " + std::to_string(token) + " '" + printable(model.tokenizer().token_text(token)) +
         "'";
}

}  // namespace

void require_checkable(const std::string& verifier_name, const SamplingParams& sampling) {
  const Verifier& verifier = resolve_verifier(verifier_name, sampling);
  if (sampling.temperature == 0 || verifier.traits().position_noise) return;
  throw_invalid("verifier '" + std::string(verifier.name()) +
                "' does not draw the tokens that plain decoding draws above temperature 0: the "
                "output cannot be checked; use verifier 'match' or temperature 0");
}

OutputCheck check_output(const std::shared_ptr<const LoadedModel>& target,
                         const SessionOptions& options, GenerateRequest request,
                         const GenerateResult& result) {
  require_checkable(options.verifier, request.sampling);
  SessionOptions plain = options;
  plain.drafters.clear();
  plain.draft.reset();
  plain.memory.reset();
  Session session(target, plain);
  request.on_chunk = nullptr;
  request.on_progress = nullptr;
  request.on_round = nullptr;

  OutputCheck check;
  check.plain = session.generate(request);
  if (check.plain.finish_reason == "cancelled") {
    check.cancelled = true;
    check.difference = "the check was cancelled";
    return check;
  }
  const std::vector<TokenId>&got = result.token_ids, &expected = check.plain.token_ids;
  check.n_tokens = static_cast<std::int64_t>(got.size());
  if (got != expected) {
    const auto at = static_cast<std::size_t>(
        std::mismatch(got.begin(), got.end(), expected.begin(), expected.end()).first -
        got.begin());
    check.first_difference = static_cast<std::int64_t>(at);
    check.difference = "position " + std::to_string(at) + " is " + describe(*target, got, at) +
                       ", plain decoding has " + describe(*target, expected, at);
  } else if (result.finish_reason != check.plain.finish_reason ||
             result.stop_reason != check.plain.stop_reason) {
    check.difference = "ended with '" + result.finish_reason + "', plain decoding with '" +
                       check.plain.finish_reason + "'";
  }
  check.identical = check.difference.empty();
  return check;
}

}  // namespace specdec
