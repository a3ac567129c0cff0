// One conversation: text in, text out, plainly or speculatively.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/token.h"
#include "decode/round_info.h"
#include "decode/stats.h"
#include "engine/loaded_model.h"
#include "sampling/logprobs.h"
#include "sampling/params.h"

namespace specdec {

struct SessionOptions {
  // "none"; one of decode/drafters/drafters.def, whose drafts have a fixed length; or several with
  // commas between them, or "auto" (ngram, suffix, and model when a draft model is given): then a
  // controller chooses pass by pass who drafts and how much, and never to lose much.
  std::string drafter = "auto";
  bool adaptive = false;  // let the controller choose the length of a single drafter too
  std::shared_ptr<const LoadedModel> draft;  // for "model"; ignored by the others
  std::string verifier = "auto";             // "auto": greedy at temperature 0, match above

  // Positions each cache can hold. 0: ModelOptions::n_ctx, else the model's context length, at most
  // kDefaultContext.
  int n_ctx = 0;
  std::string kv_type;  // "": the target model's

  int draft_max = -1;  // longest draft; -1: the drafter's default
  int draft_min = 0;   // shorter drafts are not verified
  int gamma = -1;      // fixed draft length; -1: off

  // How a draft model picks its tokens: "greedy", "sampled", "coupled" (the same noise as the
  // target under `match`), "auto" (greedy at temperature 0, coupled for match, sampled otherwise).
  std::string draft_sampling = "auto";
  double draft_temperature = -1;  // for sampled and coupled; -1: the target's
  int draft_head = -1;  // ids below this can be drafted, and those of the text; 0: all; -1: default
  int draft_top_k =
      0;  // draft from its best K tokens; 0: the target's top_k, 50 for topk verifiers
  int draft_branch = 1;  // 1..16 candidates per position; above 1 for verifiers that take trees

  int ngram_n = 5;             // longest context looked up, 2..
  int ngram_min_count = 1;     // seen at least so often
  int ngram_filler_top_k = 1;  // above 1: also count the target's top k of each position
  bool ngram_keep = false;     // keep what was learnt between calls

  int draft_layers = 0;  // "layerskip": the target's first so many layers; 0: a quarter of them

  int suffix_min_match = 1;        // shorter matches are not drafted from, 1..64
  int suffix_max_store = 1 << 18;  // tokens remembered, 1024..2^26
  bool suffix_keep = false;        // keep what was seen between calls
  std::string suffix_corpus;       // a static text to find matches in as well

  int recycling_top_k = 8;      // successors remembered per token, 1..32
  bool recycling_tree = true;   // draft a tree where the verifier takes one
  bool recycling_keep = false;  // keep the successors between calls
};

inline constexpr int kDefaultContext = 4096;

[[nodiscard]] const std::vector<std::string>&
drafter_names();  // what SessionOptions::drafter is made of
[[nodiscard]] const std::vector<std::string>& verifier_names();  // "auto" first

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
  int n_logprobs = -1;            // >= 0: log-probabilities, with so many alternatives per token
  bool render_special = false;    // show special tokens in the text

  // All run on the calling thread; an exception thrown from them ends the call and passes through.
  std::function<void(const OutputChunk&)> on_chunk;
  std::function<void(int n_read, int n_total)> on_progress;  // tokens of the prompt
  std::function<void(const RoundInfo&)> on_round;            // each target pass, before any stop
  // Asked several times a second; true ends the call with "cancelled". Besides Session::cancel().
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

// Not thread-safe but for cancel(): a second call while one is running gets Error(kBusy).
class Session {
 public:
  // Throws kInvalidArgument (names the option), kUnsupported (draft of another vocabulary),
  // kResource (memory for n_ctx).
  Session(std::shared_ptr<const LoadedModel> target, const SessionOptions& options = {});
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  // Runs to the end. Whatever the prompt shares with what the session holds is not read again.
  // kContextFull when prompt + 1 do not fit. After an exception the session can be used again.
  GenerateResult generate(const GenerateRequest& request);

  // Ends the running generate() at the next token, from any thread; no effect when none is running.
  void cancel() noexcept;

  // A second conversation that starts with this one's content; the common part is stored once.
  [[nodiscard]] std::unique_ptr<Session> fork();

  // Forgets everything: the next prompt is read from its start.
  void reset();

  [[nodiscard]] std::vector<TokenId> encode_prompt(const GenerateRequest& request) const;
  // Tokens the target's cache holds.
  [[nodiscard]] std::vector<TokenId> cached_tokens() const;
  [[nodiscard]] int n_ctx() const noexcept;
  [[nodiscard]] std::uint64_t memory_bytes() const;  // caches (of all forks) and work space
  [[nodiscard]] bool busy() const noexcept;
  [[nodiscard]] const SessionOptions& options() const noexcept;  // as resolved: no "auto" drafter
  [[nodiscard]] const LoadedModel& target() const noexcept;
  [[nodiscard]] const std::shared_ptr<const LoadedModel>& shared_target() const noexcept;

 private:
  struct Impl;
  explicit Session(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace specdec
