// A conversation with a model: its messages and the answers to them.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cli/chat_flags.h"
#include "cli/draft_flags.h"
#include "cli/options.h"
#include "engine/chat_prompt.h"
#include "engine/session.h"

namespace specdec::cli {

struct ChatCommandFlags {
  ModelFlags model;
  SamplingFlags sampling;
  DraftFlags draft;
  OutputFlags output;
  ChatFlags chat;
  int max_tokens = -1;
  std::string history;  // "": the default file
  bool no_history = false;
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

  [[nodiscard]] ChatCommandFlags& flags() noexcept { return flags_; }
  [[nodiscard]] const std::optional<GenerateResult>& last() const noexcept { return last_; }
  [[nodiscard]] const LoadedModel& target() const noexcept { return *pair_.target; }
  // Tokens of the conversation so far, and of the context.
  [[nodiscard]] std::size_t n_tokens() const { return session_.cached_tokens().size(); }
  [[nodiscard]] int n_ctx() const noexcept { return session_.n_ctx(); }

 private:
  // Answers the last message, the user's.
  bool answer();
  // The prompt, without the oldest turns where they leave no room for an answer.
  [[nodiscard]] std::vector<TokenId> prompt_with_room();

  ChatCommandFlags flags_;
  LoadedPair pair_;
  Session session_;
  bool color_;
  Conversation conversation_;
  std::optional<GenerateResult> last_;
  std::uint64_t n_answers_ = 0;  // also those that were taken back: each has another seed
};

}  // namespace specdec::cli
