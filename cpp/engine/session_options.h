// What a session can be told when it is made.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "decode/drafter_options.h"
#include "engine/loaded_model.h"

namespace specdec {

class TextMemory;

// With the options that drafters have by themselves: "none"; one name of drafters.def; several with
// commas between them; "auto": ngram, suffix and, where there is a draft, model: a session takes
// eagle or mtp in its place where the draft is a head. Throws Error(kInvalidArgument).
[[nodiscard]] std::vector<DrafterOptions> parse_drafters(const std::string& names,
                                                         bool has_draft_model);

struct SessionOptions {
  // Who drafts, each kind at most once; empty: nobody. One drafts with a length of its own; of
  // several a controller chooses, pass by pass, who drafts and how much, and never to lose much,
  // unless all have a fixed length (`gamma`).
  std::vector<DrafterOptions> drafters = parse_drafters("auto", false);
  // As "auto" does: mtp among them, where the target's file has what it needs and no draft is
  // given.
  bool prefer_next_tokens = false;
  bool adaptive = false;  // let the controller choose the length of a single drafter too
  // For DraftModelOptions, or a head for EagleOptions or MtpOptions, the latter by default the
  // target's own; ignored by the others.
  std::shared_ptr<const LoadedModel> draft;
  // Texts of earlier requests, in which drafters look up as well, and to which requests are added;
  // null: none.
  std::shared_ptr<TextMemory> memory;
  std::string verifier = "auto";  // "auto": greedy at temperature 0, match above

  // Positions each cache can hold. 0: ModelOptions::n_ctx, else the model's context length, at most
  // kDefaultContext.
  int n_ctx = 0;
  std::string kv_type;  // "": the target model's

  // false: for experiments, every pass of a model, the drafts' too, reads its whole context again,
  // and nothing is kept between calls. The same tokens, slower; prompt_ms is then next to 0, as
  // passes read the prompt.
  bool use_cache = true;
};

inline constexpr int kDefaultContext = 4096;
// Where no n_ctx is given: the model's own, or as above. A session takes less where there is no
// memory for that.
[[nodiscard]] int default_context(const LoadedModel& model);

[[nodiscard]] const std::vector<std::string>& drafter_names();   // what parse_drafters() knows
[[nodiscard]] const std::vector<std::string>& verifier_names();  // "auto" first

// Options with every "auto" of construction time decided, or Error(kInvalidArgument).
[[nodiscard]] SessionOptions resolve_options(const LoadedModel& target, SessionOptions options);

// Of resolved options, what the files of the models say about drafting, the corpus of a suffix
// automaton, and the memory, which is bound to the target. `poll` may throw and is called many
// times a second.
void complete_drafters(const LoadedModel& target, SessionOptions& options,
                       const std::function<void()>& poll);

// The one GPU that layers of the models are on; null: they are on none.
[[nodiscard]] std::shared_ptr<DeviceBackend> gpu_of(const LoadedModel& target,
                                                    const SessionOptions& options);
// Throws Error(kResource) unless the caches of resolved options can be had.
void check_cache_memory(const LoadedModel& target, const SessionOptions& options);

// Of the draft model or head: the output that its passes compute, as DraftModelOptions; 0: all.
[[nodiscard]] std::optional<int> draft_head_tokens(const SessionOptions& options);

}  // namespace specdec
