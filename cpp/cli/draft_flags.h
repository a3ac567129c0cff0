// Options of speculative decoding, and the session that they and the models make.
#pragma once

#include <memory>
#include <string>

#include "cli/args.h"
#include "cli/options.h"
#include "engine/session.h"

namespace specdec::cli {

struct DraftFlags {
  std::string drafter, verifier;
  bool use_cache = true;
  int draft_max = -1, draft_min = 0, gamma = -1;  // -1: not given
  std::string sampling;
  double temperature = -1;
  int head_tokens = -1, top_k = 0, branch = 1;
  int ngram_n = 0, ngram_min_count = 0, ngram_filler_top_k = 0;
  int suffix_min_match = 0, suffix_max_store = 0;
  std::string suffix_corpus;  // a file or a folder
  int recycling_top_k = 0;
  bool recycling_tree = true;
  int n_layers = 0;
  std::string memory;     // a file; "": none
  int memory_tokens = 0;  // that it holds at most
  bool keep = false;      // what lookups learnt, from request to request
};

void add_draft_flags(ArgParser& parser, DraftFlags& flags);

// What --drafter takes: a name, or several with commas; a UsageError lists them.
void check_drafters(const std::string& list);
// Whether the drafter of this name is among those that the flags mean.
[[nodiscard]] bool drafts_with(const DraftFlags& flags, bool has_draft_model,
                               const std::string& name);

// Throws UsageError for flags that contradict each other or that no drafter of the session takes.
// With --drafter none all of them are ignored, so that it can be added to any command.
void check_draft_flags(const ArgParser& parser, const ModelFlags& model, const DraftFlags& flags);

// What the engine makes of the flags, but for the models.
[[nodiscard]] SessionOptions session_options(const DraftFlags& flags, bool has_draft_model);

struct LoadedPair {
  std::shared_ptr<const LoadedModel> target;
  SessionOptions options;  // with the draft model, n_ctx and kv_type filled in
  double load_ms = 0;      // both models
};
[[nodiscard]] LoadedPair load_pair(const ModelFlags& flags, const DraftFlags& draft,
                                   const OutputFlags& output);
// The same models with other flags of drafting. Loads the draft model if it is needed only now.
[[nodiscard]] LoadedPair with_drafting(const LoadedPair& pair, const ModelFlags& flags,
                                       const DraftFlags& draft, const OutputFlags& output);
// Ctrl-C ends the process.
[[nodiscard]] Session make_session(const LoadedPair& pair);

}  // namespace specdec::cli
