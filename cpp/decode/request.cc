#include "decode/request.h"

#include <string>

#include "base/error.h"

namespace specdec {
namespace {

void check_at_least(const char* name, int value, int least) {
  if (value < least) {
    throw_invalid(std::string(name) + " must be >= " + std::to_string(least) + ", got " +
                  std::to_string(value));
  }
}

}  // namespace

std::string_view to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    default:
      return "cancelled";
  }
}

void DecodeRequest::validate(int vocab_size) const {
  sampling.validate();
  if (prompt.empty())
    throw_invalid("the prompt has no tokens; give at least one (for example BOS)");
  for (const TokenId token : prompt) {
    if (token < 0 || token >= vocab_size) {
      throw_invalid("prompt token " + std::to_string(token) + " is not in [0, " +
                    std::to_string(vocab_size) + ")");
    }
  }
  for (const auto& [token, bias] : sampling.logit_bias) {
    if (token >= vocab_size) {
      throw_invalid("logit_bias token id " + std::to_string(token) + " is not in [0, " +
                    std::to_string(vocab_size) + ")");
    }
  }
  if (max_tokens) check_at_least("max_tokens", *max_tokens, 0);
  if (n_logprobs && (*n_logprobs < 0 || *n_logprobs > vocab_size)) {
    throw_invalid("n_logprobs must be in [0, " + std::to_string(vocab_size) + "], got " +
                  std::to_string(*n_logprobs));
  }
}

}  // namespace specdec
