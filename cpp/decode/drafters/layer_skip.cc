// Self-speculation: the target's own first layers and head draft. The scorer that the engine gives
// shares the target's cache, so there is nothing to catch up on; all else is as with a draft model.
#include "base/error.h"
#include "decode/drafter.h"

namespace specdec {

std::unique_ptr<Drafter> make_draft_model(const DrafterSource& source);

namespace {

class LayerSkip final : public Drafter {
 public:
  explicit LayerSkip(const DrafterSource& source) : inner_(make_draft_model(source)) {}

  std::string_view name() const override { return "layerskip"; }
  int default_draft_max() const override { return 3; }
  int wanted_top_k() const override { return inner_->wanted_top_k(); }
  bool wants_all_rows() const override { return inner_->wants_all_rows(); }
  int branch() const override { return inner_->branch(); }
  bool uses_model() const override { return true; }

  void begin(const DraftSetup& setup, std::span<const TokenId> prompt) override {
    DraftSetup whole = setup;
    whole.first_window = 0;  // the text was read by the target
    whole.siblings = false;  // the target continues chains only
    inner_->begin(whole, prompt);
  }
  DraftProposal propose(std::span<const TokenId> committed, int max_tokens,
                        Chance& chance) override {
    return inner_->propose(committed, max_tokens, chance);
  }
  void commit(const CommitInfo& info) override { inner_->commit(info); }
  void align(std::span<const TokenId> committed) override { inner_->align(committed); }
  void reset() override { inner_->reset(); }

 private:
  std::unique_ptr<Drafter> inner_;
};

}  // namespace

std::unique_ptr<Drafter> make_layer_skip(const DrafterSource& source) {
  if (source.layer_scorer == nullptr)
    throw_invalid("drafter 'layerskip' needs a target of which layers can be left out");
  DrafterSource own = source;
  own.draft_scorer = source.layer_scorer;
  own.draft_cached = {};
  return std::make_unique<LayerSkip>(own);
}

}  // namespace specdec
