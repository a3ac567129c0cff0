#include "cli/draft_flags.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <variant>
#include <vector>

#include "base/error.h"
#include "cli/interrupt.h"
#include "cli/terminal.h"
#include "engine/pair.h"

namespace specdec::cli {
namespace {

std::vector<std::string> split_names(const std::string& list) {
  std::vector<std::string> names;
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t comma = std::min(list.find(',', begin), list.size());
    names.push_back(list.substr(begin, comma - begin));
    begin = comma + 1;
  }
  return names;
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Who drafts; empty: nobody.
std::vector<std::string> drafters_of(const DraftFlags& flags, bool has_draft_model) {
  if (flags.drafter == "none") return {};
  if (flags.drafter != "auto") return split_names(flags.drafter);
  std::vector<std::string> names = {"ngram", "suffix"};
  if (has_draft_model) names.emplace_back("model");
  return names;
}

// A flag and the drafters it is for; none: all.
struct Taker {
  const OptionSpec& spec;
  std::vector<std::string> drafters;
};

const std::vector<Taker>& takers() {
  static const std::vector<Taker> kTakers = {
      {opt::kDraftModelDraftMax, {}},
      {opt::kDraftModelDraftMin, {}},
      {opt::kDraftModelGamma, {}},
      {opt::kDraftModelSampling, {"model", "layerskip", "eagle", "mtp"}},
      {opt::kDraftModelTemperature, {"model", "layerskip", "eagle", "mtp"}},
      {opt::kDraftModelHeadTokens, {"model", "mtp"}},
      {opt::kDraftModelDraftTopK, {"model", "eagle", "mtp"}},
      {opt::kDraftModelBranch, {"model"}},
      {opt::kNGramN, {"ngram"}},
      {opt::kNGramMinCount, {"ngram"}},
      {opt::kNGramFillerTopK, {"ngram"}},
      {opt::kSuffixAutomatonMinMatch, {"suffix"}},
      {opt::kSuffixAutomatonMaxStore, {"suffix"}},
      {opt::kSuffixAutomatonCorpus, {"suffix"}},
      {opt::kTokenRecyclingTopK, {"recycling"}},
      {opt::kTokenRecyclingTree, {"recycling"}},
      {opt::kLayerSkipNLayers, {"layerskip"}},
  };
  return kTakers;
}

[[noreturn]] void refuse_unused(const Taker& taker, const std::string& drafter) {
  std::string text = flag_name(taker.spec) + " is for the drafter";
  const std::size_t n = taker.drafters.size();
  if (n > 1) text += "s";
  for (std::size_t i = 0; i < n; ++i)
    text += (i == 0 ? " " : i + 1 < n ? ", " : " and ") + taker.drafters[i];
  text += ", and --drafter is " + drafter;
  if (drafter == "auto") text += contains(taker.drafters, "model") ? " without -md FILE" : "";
  throw UsageError(text);
}

// Those that -md is for.
bool runs_draft(const std::string& drafter) {
  return drafter == "model" || drafter == "eagle" || drafter == "mtp";
}

// The longest default of the drafters.
int longest(const std::vector<std::string>& drafters) {
  int n = 0;
  for (const std::string& name : drafters)
    n = std::max(n, runs_draft(name) ? 4 : name == "layerskip" ? 3 : name == "ngram" ? 7 : 15);
  return n;
}

void check_lengths(const DraftFlags& flags, const std::vector<std::string>& drafters) {
  if (flags.gamma >= 0 && (flags.draft_max >= 0 || flags.draft_min > 0))
    throw UsageError(
        "--gamma fixes the length of drafts: give either --gamma, or --draft-max and --draft-min");
  const int max = flags.draft_max >= 0 ? flags.draft_max : longest(drafters);
  if (flags.gamma < 0 && flags.draft_min > max)
    throw UsageError("--draft-min must be at most --draft-max, " + std::to_string(max) + ", got " +
                     std::to_string(flags.draft_min) + ": no draft would be used");
}

}  // namespace

void check_drafters(const std::string& list) {
  const std::vector<std::string> names = split_names(list);
  for (const std::string& name : names) {
    const std::vector<std::string>& known = drafter_names();
    const bool alone = name == "none" || name == "auto";
    if (contains(known, name) && !(alone && names.size() > 1)) continue;
    std::string text = "--drafter is " + printable(list, 100) + ", expected one of";
    for (const std::string& choice : known) text += " " + choice;
    throw UsageError(text + ", or several of them with commas, without none and auto");
  }
}

bool drafts_with(const DraftFlags& flags, bool has_draft_model, const std::string& name) {
  return contains(drafters_of(flags, has_draft_model), name);
}

void add_draft_flags(ArgParser& parser, DraftFlags& flags) {
  parser.section("Speculative decoding");
  flags.drafter = opt::kDecoderDrafter.default_text;
  parser.add(opt::kDecoderDrafter, [&flags](const std::string& v) {
    check_drafters(v);
    flags.drafter = v;
  });
  flags.verifier = opt::kDecoderVerifier.default_text;
  parser.add(opt::kDecoderVerifier, [&flags](const std::string& v) {
    check_choice(opt::kDecoderVerifier, v, verifier_names());
    flags.verifier = v;
  });
  parser.add(opt::kDecoderUseCache, &flags.use_cache);
  parser.add(opt::kDraftModelDraftMax, &flags.draft_max);
  parser.add(opt::kDraftModelDraftMin, &flags.draft_min);
  parser.add(opt::kDraftModelGamma, &flags.gamma);
  parser.add(opt::kDraftModelSampling, &flags.sampling);
  parser.add(opt::kDraftModelTemperature, &flags.temperature);
  parser.add(opt::kDraftModelHeadTokens, &flags.head_tokens);
  parser.add(opt::kDraftModelDraftTopK, &flags.top_k);
  parser.add(opt::kDraftModelBranch, &flags.branch);
  parser.add(opt::kNGramN, &flags.ngram_n);
  parser.add(opt::kNGramMinCount, &flags.ngram_min_count);
  parser.add(opt::kNGramFillerTopK, &flags.ngram_filler_top_k);
  parser.add(opt::kSuffixAutomatonMinMatch, &flags.suffix_min_match);
  parser.add(opt::kSuffixAutomatonMaxStore, &flags.suffix_max_store);
  parser.add(opt::kSuffixAutomatonCorpus, &flags.suffix_corpus);
  parser.add(opt::kTokenRecyclingTopK, &flags.recycling_top_k);
  parser.add(opt::kTokenRecyclingTree, &flags.recycling_tree);
  parser.add(opt::kLayerSkipNLayers, &flags.n_layers);
}

void check_draft_flags(const ArgParser& parser, const ModelFlags& model, const DraftFlags& flags) {
  const std::vector<std::string> drafters = drafters_of(flags, !model.draft.empty());
  if (contains(drafters, "model") && model.draft.empty())
    throw UsageError("--drafter " + flags.drafter + " needs a draft model: -md FILE");
  if (contains(drafters, "eagle") && model.draft.empty())
    throw UsageError("--drafter " + flags.drafter + " needs a head: -md FILE");
  for (const Taker& taker : takers()) {
    if (drafters.empty() || taker.drafters.empty() || !parser.was_given(taker.spec)) continue;
    const auto is_used = [&](const std::string& name) { return contains(drafters, name); };
    if (std::none_of(taker.drafters.begin(), taker.drafters.end(), is_used))
      refuse_unused(taker, flags.drafter);
  }
  if (flags.top_k > 0 && flags.top_k < flags.branch)
    throw UsageError("--draft-top-k must be at least --draft-branch, " +
                     std::to_string(flags.branch) + ", got " + std::to_string(flags.top_k));
  if (flags.sampling == to_string(DraftMode::kGreedy) && flags.temperature > 0)
    throw UsageError(
        "--draft-temp has no effect on --draft-sampling greedy, whose drafts are the best tokens: "
        "leave one of them out");
  if (!drafters.empty()) check_lengths(flags, drafters);
}

namespace {

// Each drafter takes the flags that it has.
void fill(const DraftFlags& flags, DraftLengths& lengths) {
  if (flags.draft_max >= 0) lengths.draft_max = flags.draft_max;
  lengths.draft_min = flags.draft_min;
  if (flags.gamma >= 0) lengths.gamma = flags.gamma;
}

template <typename Options>
void fill_sampling(const DraftFlags& flags, Options& options) {
  options.mode = parse_draft_mode(flags.sampling);
  if (flags.temperature >= 0) options.temperature = flags.temperature;
}

void fill(const DraftFlags& flags, DraftModelOptions& options) {
  fill_sampling(flags, options);
  if (flags.head_tokens >= 0) options.head_tokens = flags.head_tokens;
  if (flags.top_k > 0) options.top_k = flags.top_k;
  options.branch = flags.branch;
}

void fill(const DraftFlags& flags, EagleOptions& options) {
  fill_sampling(flags, options);
  if (flags.top_k > 0) options.top_k = flags.top_k;
}

void fill(const DraftFlags& flags, MtpOptions& options) {
  fill_sampling(flags, options);
  if (flags.top_k > 0) options.top_k = flags.top_k;
  if (flags.head_tokens >= 0) options.head_tokens = flags.head_tokens;
}

void fill(const DraftFlags& flags, LayerSkipOptions& options) {
  fill_sampling(flags, options);
  options.n_layers = flags.n_layers;
}

void fill(const DraftFlags& flags, NGramOptions& options) {
  options.n = flags.ngram_n;
  options.min_count = flags.ngram_min_count;
  options.filler_top_k = flags.ngram_filler_top_k;
  options.keep = flags.keep;
}

void fill(const DraftFlags& flags, SuffixOptions& options) {
  options.min_match = flags.suffix_min_match;
  options.max_store = flags.suffix_max_store;
  options.keep = flags.keep;
  if (flags.suffix_corpus.empty()) return;
  // A file may be a pipe here, or "-".
  std::error_code no_folder;
  if (std::filesystem::is_directory(flags.suffix_corpus, no_folder)) {
    options.corpus_path = flags.suffix_corpus;
  } else {
    options.corpus_text = read_file(flags.suffix_corpus);
  }
}

void fill(const DraftFlags& flags, RecyclingOptions& options) {
  options.top_k = flags.recycling_top_k;
  options.tree = flags.recycling_tree;
  options.keep = flags.keep;
}

}  // namespace

SessionOptions session_options(const DraftFlags& flags, bool has_draft_model) {
  SessionOptions options;
  options.verifier = flags.verifier;
  options.use_cache = flags.use_cache;
  options.drafters = parse_drafters(flags.drafter, has_draft_model);
  options.adaptive = options.prefer_next_tokens = flags.drafter == "auto";
  for (DrafterOptions& drafter : options.drafters) {
    std::visit(
        [&](auto& o) {
          fill(flags, o);
          fill(flags, o.lengths);
        },
        drafter);
  }
  return options;
}

namespace {

bool drafts_with_model(const DraftFlags& flags) {
  const std::vector<std::string> drafters = drafters_of(flags, true);
  return std::any_of(drafters.begin(), drafters.end(), runs_draft);
}

SessionOptions whole_options(const ModelFlags& flags, const DraftFlags& draft) {
  SessionOptions options = session_options(draft, !flags.draft.empty());
  options.n_ctx = flags.n_ctx;
  options.kv_type = flags.kv_type;
  return options;
}

void warn_about(const LoadedPair& pair, const OutputFlags& output) {
  const PairReport report = check_pair(*pair.target, *pair.options.draft);
  if (!report.compatible || output.quiet) return;
  for (const std::string& warning : report.warnings) print_warning(warning);
}

}  // namespace

LoadedPair load_pair(const ModelFlags& flags, const DraftFlags& draft, const OutputFlags& output) {
  LoadedPair pair;
  pair.options = whole_options(flags, draft);
  const bool drafts = !flags.draft.empty() && drafts_with_model(draft);
  if (!flags.draft.empty() && !drafts && !output.quiet)
    print_note("-md is not used with --drafter " + draft.drafter);
  // The draft model runs most often: it is the first to be placed on a GPU.
  if (drafts) {
    pair.options.draft = load_model(flags.draft, flags, output, true);
    pair.load_ms = pair.options.draft->info().load_ms;
  }
  pair.target = load_model(flags.model, flags, output);
  pair.load_ms += pair.target->info().load_ms;
  if (drafts) warn_about(pair, output);
  return pair;
}

LoadedPair with_drafting(const LoadedPair& pair, const ModelFlags& flags, const DraftFlags& draft,
                         const OutputFlags& output) {
  LoadedPair changed = pair;
  changed.options = whole_options(flags, draft);
  changed.options.draft = pair.options.draft;
  if (changed.options.draft || !(flags.draft.empty() ? drafts_with(draft, false, "model") ||
                                                           drafts_with(draft, false, "eagle")
                                                     : drafts_with_model(draft)))
    return changed;
  if (flags.draft.empty())
    throw UsageError("the drafter " + draft.drafter +
                     " needs a draft model: start the chat with -md FILE");
  changed.options.draft = load_model(flags.draft, flags, output, true);
  warn_about(changed, output);
  return changed;
}

Session make_session(const LoadedPair& pair) {
  const AbortOnInterrupt abort;
  return Session(pair.target, pair.options);
}

}  // namespace specdec::cli
