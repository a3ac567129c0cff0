#include "cli/chat_session.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "cli/interrupt.h"
#include "cli/report.h"
#include "cli/terminal.h"

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
      color_(wants_color(STDOUT_FILENO, flags_.output.no_color)) {
  (void)choose_chat_format(*pair_.target, flags_.chat);  // fails before the first question
}

bool ChatSession::ask(const std::string& question) {
  // A loaded conversation may end with a question: the new one takes its place.
  if (!messages_.empty() && messages_.back().role == "user") messages_.pop_back();
  messages_.push_back({"user", question});
  return answer();
}

bool ChatSession::regenerate() {
  if (messages_.empty()) return false;
  if (messages_.back().role == "assistant") messages_.pop_back();
  if (messages_.empty() || messages_.back().role != "user") return false;
  return answer();
}

std::optional<std::string> ChatSession::undo() {
  while (!messages_.empty()) {
    const ChatMessage last = std::move(messages_.back());
    messages_.pop_back();
    if (last.role == "user") return last.content;
  }
  return std::nullopt;
}

void ChatSession::reset() {
  messages_.clear();
  session_.reset();
  last_.reset();
}

std::vector<ChatMessage> ChatSession::transcript() const {
  std::vector<ChatMessage> out;
  if (!flags_.chat.system.empty()) out.push_back({"system", flags_.chat.system});
  out.insert(out.end(), messages_.begin(), messages_.end());
  return out;
}

void ChatSession::set_transcript(std::vector<ChatMessage> messages) {
  reset();
  flags_.chat.system.clear();
  if (!messages.empty() && messages.front().role == "system") {
    flags_.chat.system = std::move(messages.front().content);
    messages.erase(messages.begin());
  }
  messages_ = std::move(messages);
}

bool ChatSession::forget_oldest() {
  if (messages_.size() < 2) return false;
  // Up to the next question: templates want the two to alternate.
  std::size_t n = 1;
  while (n < messages_.size() && messages_[n].role != "user") ++n;
  if (n == messages_.size()) return false;
  messages_.erase(messages_.begin(), messages_.begin() + static_cast<std::ptrdiff_t>(n));
  return true;
}

void ChatSession::make_room(GenerateRequest& request) {
  const int n_ctx = session_.n_ctx();
  const int wanted = flags_.max_tokens > 0 ? flags_.max_tokens : kRoomForAnswer;
  const auto room = static_cast<std::size_t>(std::max(1, std::min(wanted, n_ctx / 4)));
  const std::size_t n_before = messages_.size();
  while (session_.encode_prompt(request).size() + room > static_cast<std::size_t>(n_ctx) &&
         forget_oldest()) {
    request.pieces = chat_prompt(*pair_.target, flags_.chat, messages_);
  }
  if (const std::size_t n = n_before - messages_.size(); n > 0) {
    print_note("the context of " + std::to_string(n_ctx) + " tokens is full: the oldest " +
               count(n, "message") + " of this conversation " + (n == 1 ? "is" : "are") +
               " forgotten");
  }
}

bool ChatSession::answer() {
  GenerateRequest request;
  request.pieces = chat_prompt(*pair_.target, flags_.chat, messages_);
  request.max_tokens = flags_.max_tokens;
  request.sampling = flags_.sampling.params;
  make_room(request);
  // Another seed for every answer, the same ones for the same --seed.
  request.sampling.seed += n_answers_++;
  request.cancel = &interrupt_flag();
  ProgressBar bar("reading", !flags_.output.quiet);
  request.on_progress = [&bar](int n_read, int n_total) {
    bar.update(static_cast<double>(n_read) / n_total);
  };
  request.on_chunk = [&](const OutputChunk& chunk) {
    bar.finish();
    write_chunk(chunk, color_);
  };
  try {
    last_ = session_.generate(request);
  } catch (const Error& error) {
    messages_.pop_back();
    if (error.code() != ErrorCode::kContextFull) throw;
    print_warning(std::string(error.what()) + "; ask for less, or give more context with -c");
    return false;
  }
  write_stdout("\n");
  messages_.push_back({"assistant", last_->text});
  if (last_->finish_reason == "length") {
    const bool by_limit = flags_.max_tokens >= 0 &&
                          std::cmp_greater_equal(last_->token_ids.size(), flags_.max_tokens);
    print_note(by_limit ? "cut off after " + count(last_->token_ids.size(), "token") + " (-n)"
                        : "cut off: the context of " + std::to_string(session_.n_ctx()) +
                              " tokens is full");
  }
  return true;
}

}  // namespace specdec::cli
