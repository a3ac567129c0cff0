#include "decode/memory_lookup.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace specdec {
namespace {

class MemoryLookup final : public Drafter {
 public:
  MemoryLookup(const MemoryLookupOptions& options, std::shared_ptr<const DraftMemory> memory)
      : options_(options), memory_(std::move(memory)) {}

  std::string_view name() const override { return kMemoryName; }
  DraftLengths lengths() const override { return options_.lengths; }
  int default_draft_max() const override { return 15; }
  int weighed_draft_max() const override { return kWeighedMax; }

  void begin(const DraftSetup& setup, std::span<const TokenId>) override {
    key_ = setup.memory_key;
    eog_ = setup.eog;
    vocab_size_ = setup.vocab_size;
    weighed_ = setup.length_rule != nullptr;
  }

  DraftProposal propose(std::span<const TokenId> committed, int max_tokens, Chance&) override {
    DraftProposal proposal;
    if (!key_) return proposal;
    const int length = memory_->look_up(*key_, committed, max_tokens, proposal.tokens);
    if (length < options_.min_match) return {};
    proposal.strength = length;
    // As of the suffix automaton.
    const int likely = weighed_ ? kWeighedFactor * length : 2 * length - 1;
    std::size_t n = proposal.tokens.size();
    if (!options_.lengths.gamma) n = std::min(n, static_cast<std::size_t>(likely));
    for (std::size_t i = 0; i < n; ++i) {
      const TokenId token = proposal.tokens[i];
      if (token < 0 || token >= vocab_size_)
        n = i;
      else if (std::find(eog_.begin(), eog_.end(), token) != eog_.end())
        n = i + 1;
    }
    proposal.tokens.resize(n);
    return proposal;
  }

  void commit(const CommitInfo&) override {}
  void reset() override {}
  bool keeps() const override { return key_.has_value(); }
  std::unique_ptr<Drafter> fork() const override { return make_memory_lookup(options_, memory_); }

 private:
  MemoryLookupOptions options_;
  std::shared_ptr<const DraftMemory> memory_;
  std::optional<std::uint64_t> key_;
  std::vector<TokenId> eog_;
  int vocab_size_ = 0;
  bool weighed_ = false;  // by a controller
};

}  // namespace

std::unique_ptr<Drafter> make_memory_lookup(const MemoryLookupOptions& options,
                                            std::shared_ptr<const DraftMemory> memory) {
  return std::make_unique<MemoryLookup>(options, std::move(memory));
}

}  // namespace specdec
