// From what a caller asks for to what the decoding loop is given, and back.
#pragma once

#include <functional>
#include <vector>

#include "base/token.h"
#include "decode/request.h"
#include "engine/loaded_model.h"
#include "engine/session.h"

namespace specdec {

// Throws Error(kInvalidArgument) when it is given in several ways. `poll` is called many times a
// second while a long text is read; what it throws passes through.
[[nodiscard]] std::vector<TokenId> prompt_tokens(const LoadedModel& target,
                                                 const GenerateRequest& request,
                                                 const std::function<void()>& poll);
// Without callbacks and pieces.
[[nodiscard]] DecodeRequest decode_request(const LoadedModel& target, const SessionOptions& options,
                                           const GenerateRequest& request,
                                           const std::function<void()>& poll);
// All but the text, which was put together while it came.
void put_result(DecodeResult decoded, GenerateResult& result);

}  // namespace specdec
