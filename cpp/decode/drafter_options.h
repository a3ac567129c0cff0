// What each drafter can be told: one struct per drafter of drafters.def, from the API down to its
// factory.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "decode/suffix_index.h"

namespace specdec {

// How long drafts of one drafter are, in tokens of a chain or a whole tree.
struct DraftLengths {
  static constexpr int kMost = 64;

  std::optional<int> draft_max;  // 0..kMost; default: the drafter's
  int draft_min = 0;             // 0..kMost; shorter drafts are not verified
  // 0..kMost: as long as this, whatever is expected of it; the other two say nothing then.
  std::optional<int> gamma;

  // Throws Error(kInvalidArgument) naming option and range.
  void validate() const;
};

// How a draft model chooses its tokens.
enum class DraftMode {
  kAuto,  // greedy at temperature 0; coupled under `match`; sampled when draft distributions are
          // used
  kGreedy,
  kSampled,
  kCoupled,  // with the target's own noise of the position; only for verifiers that use it
};
// "auto", "greedy", "sampled", "coupled"; throws Error(kInvalidArgument) for anything else.
[[nodiscard]] DraftMode parse_draft_mode(std::string_view name);
[[nodiscard]] std::string_view to_string(DraftMode mode);

struct DraftModelOptions {
  static constexpr int kDefaultTopK = 50;

  DraftLengths lengths;
  DraftMode mode = DraftMode::kAuto;
  std::optional<double> temperature;  // default: the request's
  std::optional<int> top_k;  // default: the request's, or kDefaultTopK for verifiers that read it
  int branch = 1;            // 1..16 candidates per depth: a comb; for verifiers that take trees
  // Ids below this can be drafted, besides those of the text so far; ids of byte-level BPE are in
  // the order of their frequency. 0: all. Default: what the file says, else kDefaultHeadTokens for
  // vocabularies of twice that.
  std::optional<int> head_tokens;
  static constexpr int kDefaultHeadTokens = 32768;
};

struct NGramOptions {
  DraftLengths lengths;
  int n = 4;             // longest context looked up, 1..16 tokens
  int filler_top_k = 1;  // 1..64; above 1 the target's best tokens per position are counted too
  int min_count = 1;     // >= 1: rarer followers are not drafted
  bool keep = false;     // keep the counts from request to request
};

struct SuffixOptions {
  DraftLengths lengths;
  int min_match = 1;        // 1..64: shorter matches are not drafted from
  int max_store = 1 << 18;  // 1024..2^26 tokens are remembered, about 100 bytes each
  bool keep = false;        // keep what was seen from request to request
  std::string corpus_text;  // a static text, of which a session makes `corpus`
  std::string corpus_path;  // instead: a file, or a folder of texts
  std::shared_ptr<const SuffixIndex> corpus;  // finished; or null
};

struct RecyclingOptions {
  DraftLengths lengths;
  int top_k = 8;      // 1..32 successors remembered per token
  bool tree = true;   // a tree where the verifier takes one
  bool keep = false;  // keep the successors from request to request
};

struct LayerSkipOptions {
  DraftLengths lengths;
  int n_layers = 0;  // the target's first so many, fewer than it has; 0: a quarter of them
  DraftMode mode = DraftMode::kAuto;
  std::optional<double> temperature;
};

struct EagleOptions {
  DraftLengths lengths;
  DraftMode mode = DraftMode::kAuto;
  std::optional<double> temperature;  // default: the target's
  std::optional<int> top_k;           // as of DraftModelOptions
};

struct MtpOptions {
  DraftLengths lengths;
  DraftMode mode = DraftMode::kAuto;
  std::optional<double> temperature;  // default: the target's
  std::optional<int> top_k;           // as of DraftModelOptions
  std::optional<int> head_tokens;     // likewise
};

namespace detail {
template <typename First, typename... Rest>
struct VariantOfRest {
  using Type = std::variant<Rest...>;
};
}  // namespace detail

// One alternative per line of drafters.def, in its order.
#define SPECDEC_DRAFTER(name, Options, needs_model, function) , Options
using DrafterOptions = detail::VariantOfRest<void
#include "decode/drafters/drafters.def"
                                             >::Type;
#undef SPECDEC_DRAFTER

[[nodiscard]] std::string_view drafter_name(const DrafterOptions& options);
[[nodiscard]] const DraftLengths& draft_lengths(const DrafterOptions& options);
// Of a drafter by its name; throws Error(kInvalidArgument) for an unknown one.
[[nodiscard]] DrafterOptions default_drafter_options(std::string_view name);

}  // namespace specdec
