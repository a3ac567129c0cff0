#include "engine/hidden_states.h"

#include <algorithm>
#include <new>
#include <string>

#include "base/error.h"
#include "engine/memory.h"
#include "engine/placement.h"
#include "engine/session_options.h"
#include "kv/kv_cache.h"
#include "model/runner.h"

namespace specdec {

namespace {

constexpr std::size_t kPieceRows = 256;
constexpr std::size_t kPieceFloats = std::size_t{1} << 24;  // in flight, with many layers

// Better said at once than after half of a long text.
void check_room(std::size_t n_bytes) {
  const std::uint64_t available = available_memory_bytes();
  if (n_bytes <= available) return;
  throw Error(ErrorCode::kResource, "the hidden states need " + bytes_text(n_bytes) + " and " +
                                        bytes_text(available) +
                                        " are available; ask for a shorter text or fewer layers");
}

// Positions of the cache. Which rotations of longrope are used hangs on them.
int context_of(const LoadedModel& model, std::size_t n_tokens, int n_ctx) {
  if (n_tokens == 0 || n_tokens > static_cast<std::size_t>(kMaxContextLength))
    throw_invalid("the text has " + std::to_string(n_tokens) + " tokens, expected 1 to " +
                  std::to_string(kMaxContextLength));
  const int n = static_cast<int>(n_tokens);
  if (n_ctx == 0) return std::max(default_context(model), n);
  if (n_ctx < 1 || n_ctx > kMaxContextLength)
    throw_invalid("n_ctx must be 1 to " + std::to_string(kMaxContextLength) + ", got " +
                  std::to_string(n_ctx));
  if (n > n_ctx)
    throw_invalid("the text has " + std::to_string(n) + " tokens, and n_ctx is " +
                  std::to_string(n_ctx) + "; give a shorter text or a larger n_ctx");
  return n_ctx;
}

}  // namespace

HiddenStates read_hidden_states(const LoadedModel& model, std::span<const TokenId> tokens,
                                std::span<const std::int32_t> layers,
                                const std::function<void()>& poll, const std::atomic<bool>* cancel,
                                int n_ctx) try {
  n_ctx = context_of(model, tokens.size(), n_ctx);
  if (layers.empty()) throw_invalid("layers is empty; name at least one");
  HiddenStates out;
  out.n_tokens = tokens.size();
  out.n_layers = layers.size();
  out.n_embd = static_cast<std::size_t>(model.model().config().hidden_size);
  const std::size_t width = out.n_layers * out.n_embd;
  check_room(out.n_tokens * width * sizeof(float));
  const std::size_t n_rows = std::clamp(kPieceFloats / width, std::size_t{1}, kPieceRows);
  KvCache cache(KvArena::create({.device = model.gpu()}), model.model().kv_shape(model.kv_type()),
                n_ctx);
  Runner runner(model.model());
  while (!tokens.empty()) {
    if (poll) poll();
    const std::size_t n = std::min(tokens.size(), n_rows);
    runner.forward({.tokens = tokens.first(n), .output = RowOutput::kNone, .taps = layers}, cache,
                   cancel);
    if (out.values.empty()) out.values.reserve(out.n_tokens * width);
    for (std::size_t r = 0; r < n; ++r) {
      const std::span<const float> row = runner.results().taps(static_cast<int>(r));
      out.values.insert(out.values.end(), row.begin(), row.end());
    }
    tokens = tokens.subspan(n);
  }
  return out;
} catch (const std::bad_alloc&) {
  throw Error(ErrorCode::kResource, "not enough memory for the hidden states of " +
                                        std::to_string(tokens.size()) + " tokens");
}

}  // namespace specdec
