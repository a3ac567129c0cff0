// Copies what followed the longest suffix of the text that was seen before: in prompt and output,
// in a static text, and in earlier requests when they are kept.
#include <algorithm>
#include <string>

#include "base/error.h"
#include "decode/drafter.h"
#include "decode/suffix_index.h"

namespace specdec {
namespace {

class SuffixAutomaton final : public Drafter {
 public:
  explicit SuffixAutomaton(const SuffixOptions& options) : options_(options) {
    const auto check = [](const char* name, int value, int low, int high) {
      if (value < low || value > high) {
        throw_invalid("suffix " + std::string(name) + " must be in [" + std::to_string(low) + ", " +
                      std::to_string(high) + "], got " + std::to_string(value));
      }
    };
    check("min_match", options.min_match, 1, 64);
    check("max_store", options.max_store, 1024, 1 << 26);
  }

  std::string_view name() const override { return "suffix"; }
  DraftLengths lengths() const override { return options_.lengths; }
  int default_draft_max() const override { return 15; }
  int weighed_draft_max() const override { return kWeighedMax; }

  void begin(const DraftSetup& setup, std::span<const TokenId> prompt) override {
    eog_ = setup.eog;
    vocab_size_ = setup.vocab_size;
    weighed_ = setup.length_rule != nullptr;
    // A conversation goes on with all that was said before.
    const std::span<const TokenId> known = current();
    const bool continues = !truncated_ && known.size() <= prompt.size() &&
                           std::equal(known.begin(), known.end(), prompt.begin());
    if (!continues) {
      if (!options_.keep) {
        index_ = SuffixIndex();
      } else {
        index_.append_separator();
      }
      start_document();
    }
    sync(prompt);
  }

  DraftProposal propose(std::span<const TokenId> committed, int max_tokens, Chance&) override {
    sync(committed);
    const SuffixIndex* source = &index_;
    SuffixMatch match = index_.match();
    if (options_.corpus != nullptr) {
      const SuffixMatch other = cursor_.match(*options_.corpus);
      if (other.length > match.length) {  // ties go to the text at hand
        match = other;
        source = options_.corpus.get();
      }
    }
    DraftProposal proposal;
    if (match.length < options_.min_match) return proposal;
    proposal.strength = match.length;
    // The longer the match, the likelier that it goes on. Who weighs drafts is offered more.
    const int likely = weighed_ ? kWeighedFactor * match.length : 2 * match.length - 1;
    const int limit = options_.lengths.gamma ? max_tokens : std::min(max_tokens, likely);
    const std::span<const TokenId> text = source->text();
    for (auto at = static_cast<std::size_t>(match.next); proposal.size() < limit; ++at) {
      // A match that ends at most a few tokens ago: the text goes round in a circle.
      while (at >= text.size() && match.period > 0) at -= static_cast<std::size_t>(match.period);
      if (at >= text.size()) break;
      const TokenId token = text[at];
      if (token < 0 || token >= vocab_size_) break;
      proposal.tokens.push_back(token);
      if (std::find(eog_.begin(), eog_.end(), token) != eog_.end()) break;
    }
    return proposal;
  }

  void commit(const CommitInfo& info) override { sync(info.committed); }

  void reset() override {
    index_ = SuffixIndex();
    start_document();
  }
  bool keeps() const override { return options_.keep; }
  std::unique_ptr<Drafter> fork() const override {
    return options_.keep ? std::make_unique<SuffixAutomaton>(*this) : nullptr;
  }

 private:
  [[nodiscard]] std::span<const TokenId> current() const {
    return index_.text().subspan(document_);
  }

  void start_document() {
    document_ = index_.text().size();
    n_seen_ = 0;
    truncated_ = false;
    cursor_ = {};
  }

  // Takes in what was committed since the last time.
  void sync(std::span<const TokenId> committed) {
    for (; n_seen_ < committed.size(); ++n_seen_) {
      const TokenId token = committed[n_seen_];
      if (index_.text().size() >= static_cast<std::size_t>(options_.max_store)) shrink();
      index_.append(token);
      if (options_.corpus != nullptr) cursor_.push(*options_.corpus, token);
    }
  }

  // Keeps the newer half: memory stays bounded and the cost per token constant.
  void shrink() {
    const std::span<const TokenId> text = index_.text();
    const std::size_t first = text.size() / 2;
    SuffixIndex kept;
    for (const TokenId token : text.subspan(first)) {
      if (token < 0) {
        kept.append_separator();
      } else {
        kept.append(token);
      }
    }
    truncated_ = truncated_ || document_ < first;
    // A leading separator is not kept.
    const std::size_t n_dropped = text.size() - kept.text().size();
    document_ -= std::min(document_, n_dropped);
    index_ = std::move(kept);
  }

  SuffixOptions options_;
  std::vector<TokenId> eog_;
  int vocab_size_ = 0;
  bool weighed_ = false;  // by a controller
  SuffixIndex index_;
  SuffixIndex::Cursor cursor_;  // in the static text
  std::size_t document_ = 0;    // where the current text begins in the index
  std::size_t n_seen_ = 0;      // of its tokens
  bool truncated_ = false;      // its beginning was dropped
};

}  // namespace

std::unique_ptr<Drafter> make_suffix_automaton(const SuffixOptions& options, const DrafterModels&) {
  return std::make_unique<SuffixAutomaton>(options);
}

}  // namespace specdec
