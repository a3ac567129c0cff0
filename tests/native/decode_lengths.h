// A drafter that is told the length of its drafts from request to request.
#pragma once

#include <memory>
#include <utility>

#include "decode/drafter.h"

namespace specdec::testing {

class WithLengths final : public ModelDrafter {
 public:
  explicit WithLengths(std::unique_ptr<Drafter> inner) : inner_(std::move(inner)) {}
  // Null: those that it was made with.
  std::optional<DraftLengths> told;

  std::string_view name() const override { return inner_->name(); }
  DraftLengths lengths() const override { return told.value_or(inner_->lengths()); }
  int default_draft_max() const override { return inner_->default_draft_max(); }
  int wanted_top_k() const override { return inner_->wanted_top_k(); }
  bool wants_all_rows() const override { return inner_->wants_all_rows(); }
  std::span<const std::int32_t> wanted_taps() const override { return inner_->wanted_taps(); }
  int n_followed(std::span<const TokenId> text) override { return inner_->n_followed(text); }
  void read(const ReadInfo& info) override { inner_->read(info); }
  ModelDrafter* model() override { return inner_->model() != nullptr ? this : nullptr; }
  int branch() const override { return inner_->model()->branch(); }
  int n_behind(std::span<const TokenId> committed) override {
    return inner_->model()->n_behind(committed);
  }
  int n_unread() const override { return inner_->model()->n_unread(); }
  bool can_read_all(std::span<const TokenId> committed) const override {
    return inner_->model()->can_read_all(committed);
  }
  void read_all(std::span<const TokenId> committed) override {
    inner_->model()->read_all(committed);
  }
  void begin(const DraftSetup& setup, std::span<const TokenId> prompt) override {
    inner_->begin(setup, prompt);
  }
  DraftProposal propose(std::span<const TokenId> committed, int max_tokens,
                        Chance& chance) override {
    return inner_->propose(committed, max_tokens, chance);
  }
  std::optional<DraftPlan> plan(std::span<const TokenId> committed, int max_tokens) override {
    return inner_->model()->plan(committed, max_tokens);
  }
  DraftProposal conclude(const DraftPlan& plan) override { return inner_->model()->conclude(plan); }
  void commit(const CommitInfo& info) override { inner_->commit(info); }
  void align(std::span<const TokenId> committed) override { inner_->model()->align(committed); }
  void reset() override { inner_->reset(); }

 private:
  std::unique_ptr<Drafter> inner_;
};

}  // namespace specdec::testing
