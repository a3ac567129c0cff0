// Self-speculation: the target's own first layers and head draft. The scorer that the engine gives
// shares the target's cache, so there is nothing to catch up on; all else is as with a draft model.
#include <utility>

#include "base/error.h"
#include "decode/drafter.h"

namespace specdec {

std::unique_ptr<ModelDrafter> make_model_drafter(const DraftModelOptions&, TokenCache&);

namespace {

class LayerSkip final : public ModelDrafter {
 public:
  LayerSkip(const DraftLengths& lengths, std::unique_ptr<ModelDrafter> inner)
      : lengths_(lengths), inner_(std::move(inner)) {}

  std::string_view name() const override { return "layerskip"; }
  DraftLengths lengths() const override { return lengths_; }
  int default_draft_max() const override { return 3; }

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
  DraftLengths lengths_;
  std::unique_ptr<ModelDrafter> inner_;
};

}  // namespace

// How many layers draft was decided with the scorer.
std::unique_ptr<Drafter> make_layer_skip(const LayerSkipOptions& options,
                                         const DrafterModels& models) {
  if (models.layers == nullptr)
    throw_invalid("drafter 'layerskip' needs a target of which layers can be left out");
  DraftModelOptions inner;
  inner.mode = options.mode;
  inner.temperature = options.temperature;
  return std::make_unique<LayerSkip>(options.lengths, make_model_drafter(inner, *models.layers));
}

}  // namespace specdec
