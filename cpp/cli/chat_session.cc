#include "cli/chat_session.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "cli/interrupt.h"
#include "cli/report.h"
#include "cli/terminal.h"
#include "decode/verifier.h"

namespace specdec::cli {
namespace {

// Kept free for an answer without a limit of its own.
constexpr int kRoomForAnswer = 512;

std::string count(std::size_t n, const char* noun) {
  return std::to_string(n) + " " + noun + (n == 1 ? "" : "s");
}

}  // namespace

ChatSession::ChatSession(ChatCommandFlags flags, LoadedPair pair)
    : flags_(std::move(flags)),
      pair_(std::move(pair)),
      session_(make_session(pair_)),
      color_(wants_color(STDOUT_FILENO, flags_.output.no_color)),
      conversation_(pair_.target, chat_options(flags_.chat)) {
  conversation_.set_system(flags_.chat.system);
  load_prompt_cache(*session_, flags_.kept);
  if (flags_.draft.drafter == "none") {  // what it becomes when speculation is switched on
    flags_.draft.drafter = "auto";
    speculative_ = false;
  }
}

void ChatSession::set_drafting(const DraftFlags& draft, bool speculative) {
  DraftFlags effective = draft;
  if (!speculative) effective.drafter = "none";
  LoadedPair changed = with_drafting(pair_, flags_.model, effective, flags_.output);
  // One context at a time: there may not be memory for two.
  session_.reset();
  try {
    session_.emplace(make_session(changed));
  } catch (const Error& error) {
    session_.emplace(make_session(pair_));
    throw UsageError(error.what());
  }
  pair_ = std::move(changed);
  const bool same_passes = draft.use_cache == flags_.draft.use_cache;
  if (draft.drafter != flags_.draft.drafter) drafter_before_ = flags_.draft.drafter;
  flags_.draft = draft;
  speculative_ = speculative;
  if (same_passes) return;
  set_target_alone(target_alone());
  if (draft_alone()) set_draft_alone(true);
}

bool ChatSession::drafts_with(const std::string& name) const {
  return speculative_ && cli::drafts_with(flags_.draft, !flags_.model.draft.empty(), name);
}

void ChatSession::set_target_alone(bool shown) {
  target_alone_.reset();
  if (shown) target_alone_.emplace(pair_.target, pair_.options);
}

void ChatSession::set_draft_alone(bool shown) {
  draft_alone_.reset();
  if (!shown) return;
  if (!pair_.options.draft) {
    throw UsageError(flags_.model.draft.empty()
                         ? "there is no draft model: start the chat with -md FILE"
                         : "the draft model is not in use: /drafter model");
  }
  draft_alone_.emplace(pair_.options.draft, pair_.options);
}

void ChatSession::set_between_answers(BetweenAnswers kept) {
  const bool keep = kept == BetweenAnswers::kEverything;
  if (keep != flags_.draft.keep) {
    DraftFlags draft = flags_.draft;
    draft.keep = keep;
    set_drafting(draft, speculative_);
  }
  between_ = kept;
}

bool ChatSession::unanswered() const noexcept {
  return !messages().empty() && messages().back().role == "user";
}

std::string ChatSession::system() const {
  const bool has = !messages().empty() && messages().front().role == "system";
  return has ? messages().front().content : std::string();
}

bool ChatSession::ask(const std::string& question) {
  if (between_ == BetweenAnswers::kNothing) reset();
  // A loaded conversation may end with a question: the new one takes its place.
  if (unanswered()) conversation_.remove_last();
  conversation_.add("user", question);
  return answer();
}

bool ChatSession::regenerate() {
  if (!messages().empty() && messages().back().role == "assistant") conversation_.remove_last();
  return unanswered() && answer();
}

std::optional<std::string> ChatSession::undo() {
  while (!messages().empty() && messages().back().role != "system") {
    const ChatMessage last = messages().back();
    conversation_.remove_last();
    if (last.role == "user") return last.content;
  }
  return std::nullopt;
}

void ChatSession::reset() {
  conversation_.clear();
  session_->reset();
  last_.reset();
}

void ChatSession::set_messages(std::vector<ChatMessage> messages) {
  reset();
  conversation_.set_system({});
  for (ChatMessage& message : messages) {
    if (message.role == "system") {
      conversation_.set_system(std::move(message.content));
    } else {
      conversation_.add(std::move(message.role), std::move(message.content));
    }
  }
}

std::vector<TokenId> ChatSession::prompt_with_room() {
  const int n_ctx = session_->n_ctx();
  const int wanted = flags_.max_tokens > 0 ? flags_.max_tokens : kRoomForAnswer;
  const auto room = static_cast<std::size_t>(std::max(1, std::min(wanted, n_ctx / 4)));
  const std::size_t n_before = messages().size();
  std::vector<TokenId> ids = conversation_.prompt().ids;
  while (ids.size() + room > static_cast<std::size_t>(n_ctx) && conversation_.drop_oldest_turn()) {
    ids = conversation_.prompt().ids;
  }
  if (const std::size_t n = n_before - messages().size(); n > 0) {
    print_note("the context of " + std::to_string(n_ctx) + " tokens is full: the oldest " +
               count(n, "message") + " of this conversation " + (n == 1 ? "is" : "are") +
               " forgotten");
  }
  return ids;
}

bool ChatSession::answer() {
  GenerateRequest request;
  try {
    request.prompt_ids = prompt_with_room();
  } catch (const Error& error) {
    // What the template refuses is said and not kept.
    if (error.code() == ErrorCode::kCancelled) throw;
    conversation_.remove_last();
    print_warning(error.what());
    return false;
  }
  request.max_tokens = flags_.max_tokens;
  request.sampling = flags_.sampling.params;
  // Another seed for every answer, the same ones for the same --seed.
  request.sampling.seed += n_answers_++;
  request.cancel = &interrupt_flag();
  ProgressBar bar("reading", !flags_.output.quiet);
  request.on_progress = [&bar](int n_read, int n_total) {
    bar.update(static_cast<double>(n_read) / n_total);
  };
  std::vector<OutputChunk> held;  // a trace would tear the text apart
  request.on_chunk = [&](const OutputChunk& chunk) {
    bar.finish();
    if (trace_) {
      held.push_back(chunk);
    } else {
      write_chunk(chunk, color_);
    }
  };
  if (trace_) {
    request.on_round = [&](const RoundInfo& round) {
      bar.finish();
      print_round(round, *pair_.target);
    };
  }
  try {
    keep_beginning(request);
    last_ = session_->generate(request);
  } catch (const Error& error) {
    conversation_.remove_last();
    const bool is_full = error.code() == ErrorCode::kContextFull;
    // What is set between answers may not go together; it can be set again.
    if (!is_full && error.code() != ErrorCode::kInvalidArgument) throw;
    print_warning(std::string(error.what()) +
                  (is_full ? "; ask for less, or give more context with -c" : ""));
    return false;
  }
  for (const OutputChunk& chunk : held) write_chunk(chunk, color_);
  write_stdout("\n");
  conversation_.add("assistant", last_->text);
  if (last_->finish_reason == "length") {
    const bool by_limit = flags_.max_tokens >= 0 &&
                          std::cmp_greater_equal(last_->token_ids.size(), flags_.max_tokens);
    print_note(by_limit ? "cut off after " + count(last_->token_ids.size(), "token") + " (-n)"
                        : "cut off: the context of " + std::to_string(session_->n_ctx()) +
                              " tokens is full");
  }
  show_beside(request);
  return true;
}

void ChatSession::keep_beginning(const GenerateRequest& request) {
  if (kept_ || flags_.kept.file.empty() || flags_.kept.read_only) return;
  kept_ = true;
  const std::vector<TokenId> beginning = fixed_beginning(conversation_);
  if (beginning.empty()) return;
  GenerateRequest reading = request;
  // One token of the question more: the last one of a prompt is not read.
  reading.prompt_ids.resize(std::min(beginning.size() + 1, request.prompt_ids.size()));
  try {
    (void)keep_prompt(*session_, flags_.kept, reading);
  } catch (const Error& error) {  // Ctrl-C ends the answer too
    if (error.code() != ErrorCode::kCancelled) throw;
  }
}

void ChatSession::show_beside(const GenerateRequest& request) {
  const auto ask = [&](std::optional<AloneAnswer>& model,
                       const char* title) -> std::optional<GenerateResult> {
    if (!model || interrupted()) return std::nullopt;
    try {
      GenerateResult result = model->generate(request, *session_);
      if (result.finish_reason == "cancelled") return std::nullopt;
      write_stderr(std::string(title) + " alone: " + result.text + "\n");
      return result;
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kCancelled) throw;
      print_warning(std::string(title) + " alone: " + error.what());
      return std::nullopt;
    }
  };
  if (speculative_) {
    if (const std::optional<GenerateResult> plain = ask(target_alone_, "target")) {
      const Verifier& verifier = resolve_verifier(pair_.options.verifier, request.sampling);
      std::string excuse;
      if (!verifier.traits().lossless) {
        excuse = "this verifier is not lossless";
      } else if (request.sampling.temperature > 0 && !verifier.traits().position_noise) {
        excuse = "both are draws from the same distribution (--verify match gives the same ones)";
      }
      print_comparison(*last_, *plain, excuse);
    }
  }
  (void)ask(draft_alone_, "draft model");
}

}  // namespace specdec::cli
