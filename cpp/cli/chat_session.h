// A conversation with a model: its messages and the answers to them.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cli/chat_comparison.h"
#include "cli/chat_flags.h"
#include "cli/draft_flags.h"
#include "cli/options.h"
#include "cli/prompt_cache.h"
#include "engine/chat_prompt.h"
#include "engine/session.h"

namespace specdec::cli {

struct ChatCommandFlags {
  ModelFlags model;
  SamplingFlags sampling;
  DraftFlags draft;
  OutputFlags output;
  ChatFlags chat;
  PromptCacheFlags kept;
  int max_tokens = -1;
  std::string history;  // "": the default file
  bool no_history = false;
};

// What outlives an answer.
enum class BetweenAnswers {
  kConversation,  // what was said; lookups learn from it again
  kNothing,       // every question stands alone
  kEverything,    // what was said, and what lookups learnt, from taken back answers too
};

// What was said is not read again: the model's cache holds it, in both models.
class ChatSession {
 public:
  // Throws Error when the model has no chat template.
  ChatSession(ChatCommandFlags flags, LoadedPair pair);

  // Adds the question, writes the answer to stdout as it comes and adds it. False when there was no
  // room for it: then nothing was added. Ctrl-C ends an answer, which stays as far as it came.
  bool ask(const std::string& question);
  // Another answer to the last question. False when there is none.
  bool regenerate();
  // Takes back the last question and its answer; returns the question, nothing when there is none.
  [[nodiscard]] std::optional<std::string> undo();
  void reset();

  // With the system message, if there is one.
  [[nodiscard]] const std::vector<ChatMessage>& messages() const noexcept {
    return conversation_.messages();
  }
  void set_messages(std::vector<ChatMessage> messages);
  [[nodiscard]] std::string system() const;  // "": none of the user's
  void set_system(std::string text) { conversation_.set_system(std::move(text)); }
  // The last message is a question.
  [[nodiscard]] bool unanswered() const noexcept;

  // Who drafts, and how, from the next answer on. Throws UsageError, and everything is as before,
  // where models or memory do not allow it; Error where there is no way back.
  void set_drafting(const DraftFlags& draft, bool speculative);
  // The drafters that were chosen before those of now.
  [[nodiscard]] const std::string& drafter_before() const noexcept { return drafter_before_; }
  // Off: the target decodes plainly, whatever the flags say.
  [[nodiscard]] bool speculative() const noexcept { return speculative_; }
  // Whether drafts come from the drafter of this name.
  [[nodiscard]] bool drafts_with(const std::string& name) const;

  // The answer of the target, or of the draft model, alone beside each answer. Throws UsageError
  // when there is no draft model.
  void set_target_alone(bool shown);
  void set_draft_alone(bool shown);
  [[nodiscard]] bool target_alone() const noexcept { return target_alone_.has_value(); }
  [[nodiscard]] bool draft_alone() const noexcept { return draft_alone_.has_value(); }
  // Each pass of the target is told; the text comes at the end.
  void set_trace(bool trace) noexcept { trace_ = trace; }
  [[nodiscard]] bool trace() const noexcept { return trace_; }
  void set_between_answers(BetweenAnswers kept);
  [[nodiscard]] BetweenAnswers between_answers() const noexcept { return between_; }

  [[nodiscard]] ChatCommandFlags& flags() noexcept { return flags_; }
  [[nodiscard]] const std::optional<GenerateResult>& last() const noexcept { return last_; }
  [[nodiscard]] const LoadedModel& target() const noexcept { return *pair_.target; }
  // Tokens of the conversation so far, and of the context.
  [[nodiscard]] std::size_t n_tokens() const { return session_->cached_tokens().size(); }
  [[nodiscard]] int n_ctx() const noexcept { return session_->n_ctx(); }

 private:
  // Answers the last message, the user's.
  bool answer();
  // The prompt, without the oldest turns where they leave no room for an answer.
  [[nodiscard]] std::vector<TokenId> prompt_with_room();
  // Before the first answer: what does not depend on the question goes to the file.
  void keep_beginning(const GenerateRequest& request);
  // What was asked for beside the answer to this request.
  void show_beside(const GenerateRequest& request);

  ChatCommandFlags flags_;
  LoadedPair pair_;
  std::optional<Session> session_;  // always there, but for a moment while it is replaced
  bool color_;
  bool speculative_ = true, trace_ = false, kept_ = false;
  std::string drafter_before_ = "auto";
  BetweenAnswers between_ = BetweenAnswers::kConversation;
  std::optional<AloneAnswer> target_alone_, draft_alone_;
  Conversation conversation_;
  std::optional<GenerateResult> last_;
  std::uint64_t n_answers_ = 0;  // also those that were taken back: each has another seed
};

}  // namespace specdec::cli
