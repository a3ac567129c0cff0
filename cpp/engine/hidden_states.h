// What the layers of a model say of a text: for tools that train heads on it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/loaded_model.h"

namespace specdec {

struct HiddenStates {
  std::size_t n_tokens = 0, n_layers = 0, n_embd = 0;
  std::vector<float> values;  // [n_tokens, n_layers, n_embd]
};

// The residual stream that enters the given layers, ascending and distinct, at each token of a text
// that is read from its beginning; the number of layers: what leaves the last one, before the final
// norm. The bits are those that any pass over the text has. `poll` is called between pieces of the
// text and may throw. Errors: kInvalidArgument (layers, tokens, an empty text), kUnsupported (the
// model is a head), kResource, kCancelled.
[[nodiscard]] HiddenStates read_hidden_states(const LoadedModel& model,
                                              std::span<const TokenId> tokens,
                                              std::span<const std::int32_t> layers,
                                              const std::function<void()>& poll = {},
                                              const std::atomic<bool>* cancel = nullptr,
                                              int n_ctx = 0);
// n_ctx: positions of the context that the text stands in, which has a say where positions are
// scaled by it (longrope); 0: those that generate_many() takes, or the text's where it is longer.

}  // namespace specdec
