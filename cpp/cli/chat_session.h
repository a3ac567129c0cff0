// A conversation with a model: its messages and the answers to them.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cli/chat_prompt.h"
#include "cli/draft_flags.h"
#include "cli/options.h"
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
  [[nodiscard]] std::vector<ChatMessage> transcript() const;
  void set_transcript(std::vector<ChatMessage> messages);
  [[nodiscard]] const std::string& system() const noexcept { return flags_.chat.system; }
  void set_system(std::string text) { flags_.chat.system = std::move(text); }

  [[nodiscard]] ChatCommandFlags& flags() noexcept { return flags_; }
  [[nodiscard]] const std::optional<GenerateResult>& last() const noexcept { return last_; }
  [[nodiscard]] const LoadedModel& target() const noexcept { return *pair_.target; }
  [[nodiscard]] std::size_t size() const noexcept { return messages_.size(); }
  // Tokens of the conversation so far, and of the context.
  [[nodiscard]] std::size_t n_tokens() const { return session_.cached_tokens().size(); }
  [[nodiscard]] int n_ctx() const noexcept { return session_.n_ctx(); }

 private:
  // Answers messages_, whose last one is the user's.
  bool answer();
  void make_room(GenerateRequest& request);
  // Takes out the oldest question and its answer; false when only the last question is left.
  bool forget_oldest();

  ChatCommandFlags flags_;
  LoadedPair pair_;
  Session session_;
  bool color_;
  std::vector<ChatMessage> messages_;  // without the system message
  std::optional<GenerateResult> last_;
  std::uint64_t n_answers_ = 0;  // also those that were taken back: each has another seed
};

}  // namespace specdec::cli
