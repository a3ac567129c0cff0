// One conversation: text in, text out, plainly or speculatively.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/token.h"
#include "decode/round_info.h"
#include "decode/stats.h"
#include "engine/loaded_model.h"
#include "engine/session_options.h"
#include "sampling/constraint.h"
#include "sampling/logprobs.h"
#include "sampling/params.h"

namespace specdec {

// A piece of output; concatenated chunks are the result. Text is valid UTF-8: a character spread
// over several tokens comes with the last of them.
struct OutputChunk {
  std::string text;
  std::vector<TokenId> token_ids;
  std::vector<std::size_t> text_ends;   // [token_ids] end of each token's text within `text`
  std::vector<bool> from_draft;         // [token_ids] accepted from a draft
  std::vector<TokenLogprobs> logprobs;  // [token_ids] or empty
};

struct GenerateRequest {
  // Exactly one of the three: token ids as they are, else pieces, else text.
  std::vector<TokenId> prompt_ids;
  std::vector<PromptPiece> pieces;
  std::string prompt;
  bool parse_special = true;  // in `prompt`
  int add_bos = -1;           // -1: as the file says; 0, 1. Not for prompt_ids

  int max_tokens = -1;  // -1: until the context is full
  SamplingParams sampling;
  std::vector<std::string> stop;  // the text ends before the first one that appears
  bool ignore_eos = false;        // forbids the tokens that end a generation, as llama.cpp does
  bool speculate = true;          // false: plain decoding
  // Of a session with a memory: false: nothing of it is used, nor added to it; and whose texts
  // these are, which are kept apart by that name.
  bool remember = true;
  std::string memory_key;
  std::shared_ptr<TokenConstraint> constraint;  // null: any text; belongs to this request alone
  int n_logprobs = -1;          // >= 0: log-probabilities, with so many alternatives per token
  bool render_special = false;  // show special tokens in the text

  // All run on the calling thread; an exception thrown from them ends the call and passes through.
  std::function<void(const OutputChunk&)> on_chunk;
  // Tokens of the prompt; the last call, before the first chunk, says (total, total).
  std::function<void(int n_read, int n_total)> on_progress;
  std::function<void(const RoundInfo&)> on_round;  // each target pass, before any stop
  // The token of this call: true ends it with "cancelled", within a pass too. Any thread may set it
  // at any time, also before the call, and no request is lost: the session never clears it.
  // It also sets it, when should_cancel says so.
  std::atomic<bool>* cancel = nullptr;
  // Asked several times a second; true ends the call with "cancelled".
  std::function<bool()> should_cancel;
};

struct GenerateResult {
  std::string text;
  std::vector<TokenId> token_ids;       // without the end-of-sequence token
  std::vector<bool> from_draft;         // [token_ids]
  std::string finish_reason;            // "stop", "length", "cancelled"
  std::string stop_reason;              // "eos", the stop string that ended it, or ""
  std::vector<TokenLogprobs> logprobs;  // [token_ids] or empty
  int n_prompt_tokens = 0;
  int n_reused_tokens = 0;  // of the prompt, found in the cache
  std::uint64_t seed = 0;   // the one used
  DecodeStats stats;
};

// What a file of Session::save() was made with.
struct KeptOptions {
  int n_ctx = 0;
  std::string kv_type;
};
// Throws what load() throws when it was made with another model or version.
[[nodiscard]] KeptOptions kept_options(const LoadedModel& target, const std::string& path,
                                       const std::function<void()>& poll = {});

// Not thread-safe: a second call while one is running gets Error(kBusy).
class Session {
 public:
  // Throws kInvalidArgument (names the option), kUnsupported (draft of another vocabulary),
  // kResource (memory for n_ctx). `poll` is called many times a second while a long suffix_corpus
  // is read; what it throws passes through.
  Session(std::shared_ptr<const LoadedModel> target, const SessionOptions& options = {},
          const std::function<void()>& poll = {});
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  // Runs to the end. Whatever the prompt shares with what the session holds is not read again.
  // kContextFull when prompt + 1 do not fit. After an exception the session can be used again.
  GenerateResult generate(const GenerateRequest& request);

  // A second conversation that starts with this one's content; the common part is stored once.
  [[nodiscard]] std::unique_ptr<Session> fork();

  // Writes to a file, in place of one that is there, what a load() goes on from with the same bits:
  // the caches of all tokens that cached_tokens() lists. A draft model reads first what it has not
  // read of them. Throws kInvalidArgument when there is nothing to keep, kUnsupported with layers
  // on a GPU, kIo. `poll` is called many times a second; what it throws passes through, and leaves
  // the old file.
  void save(const std::string& path, const std::function<void()>& poll = {});
  // What such a file holds takes the place of what the session holds. Of a draft model it is left
  // out when that is another one now. Throws kInvalidArgument when the model or an option differs,
  // kContextFull, kUnsupported, kModelFormat and kIo; then the session is as before. Passes may be
  // timed at the end: what `poll` throws then leaves the text of the file.
  void load(const std::string& path, const std::function<void()>& poll = {});

  // Forgets everything: the next prompt is read from its start.
  void reset();

  [[nodiscard]] std::vector<TokenId> encode_prompt(const GenerateRequest& request) const;
  // Tokens the target's cache holds.
  [[nodiscard]] std::vector<TokenId> cached_tokens() const;
  [[nodiscard]] int n_ctx() const noexcept;
  [[nodiscard]] std::uint64_t memory_bytes() const;  // caches (of all forks) and work space
  [[nodiscard]] bool busy() const noexcept;
  [[nodiscard]] const SessionOptions& options() const noexcept;  // as resolved
  [[nodiscard]] const LoadedModel& target() const noexcept;
  [[nodiscard]] const std::shared_ptr<const LoadedModel>& shared_target() const noexcept;

 private:
  struct Impl;
  explicit Session(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace specdec
