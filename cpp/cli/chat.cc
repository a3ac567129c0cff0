// `specdec chat`: a conversation on the terminal, or with lines from a pipe.

#include <unistd.h>

#include <cerrno>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "cli/args.h"
#include "cli/chat_flags.h"
#include "cli/commands.h"
#include "cli/draft_flags.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/report.h"
#include "cli/terminal.h"

namespace specdec::cli {
namespace {

// Lines of standard input.
class LineReader {
 public:
  // Nothing at the end of the input or on Ctrl-C.
  std::optional<std::string> next() {
    while (true) {
      const std::size_t newline = buffer_.find('\n');
      if (newline != std::string::npos) {
        std::string line = buffer_.substr(0, newline);
        buffer_.erase(0, newline + 1);
        if (line.ends_with('\r')) line.pop_back();
        return line;
      }
      char chunk[4096];
      const ssize_t n = at_end_ ? 0 : ::read(STDIN_FILENO, chunk, sizeof chunk);
      if (n < 0 && errno == EINTR && !interrupted()) continue;
      if (n < 0) return std::nullopt;
      if (n == 0) {
        at_end_ = true;
        if (buffer_.empty()) return std::nullopt;
        return std::exchange(buffer_, {});
      }
      buffer_.append(chunk, static_cast<std::size_t>(n));
    }
  }

 private:
  std::string buffer_;
  bool at_end_ = false;
};

struct ChatCommandFlags {
  ModelFlags model;
  SamplingFlags sampling;
  DraftFlags draft;
  OutputFlags output;
  ChatFlags chat;
  int max_tokens = -1;
};

class ChatCommand {
 public:
  ChatCommand(const ChatCommandFlags& flags, LoadedPair pair)
      : flags_(flags),
        pair_(std::move(pair)),
        session_(pair_.target, pair_.options),
        color_(wants_color(STDOUT_FILENO, flags.output.no_color)),
        interactive_(is_terminal(STDIN_FILENO) && !flags.output.quiet),
        conversation_(pair_.target, chat_options(flags.chat)) {
    conversation_.set_system(flags.chat.system);
  }

  int run() {
    if (interactive_) {
      write_stderr("Chatting with " + title() +
                   ". /reset forgets, /stats explains the "
                   "speed, /exit ends; Ctrl-C stops an answer.\n");
    }
    LineReader lines;
    while (true) {
      if (interactive_) write_stderr("\n> ");
      const std::optional<std::string> line = lines.next();
      if (interrupted()) {
        if (interactive_) write_stderr("\n");
        return kExitInterrupted;
      }
      if (!line || *line == "/exit" || *line == "/quit") return kExitOk;
      if (line->empty()) continue;
      if (line->starts_with('/')) {
        command(*line);
        continue;
      }
      answer(*line);
      if (interrupted() && !interactive_) return kExitInterrupted;
      clear_interrupt();
    }
  }

 private:
  [[nodiscard]] std::string title() const {
    const ModelInfo& info = pair_.target->info();
    return info.name.empty() ? printable(info.path, 400) : info.name;
  }

  void command(const std::string& name) {
    if (name == "/reset") {
      conversation_.clear();
      session_.reset();
      print_note("the conversation starts anew");
    } else if (name == "/stats") {
      if (last_) {
        print_speed(*last_, *pair_.target);
      } else {
        print_note("nothing was generated yet");
      }
    } else {
      print_note("unknown command " + quoted(name) + "; there are /reset /stats /exit");
    }
  }

  void answer(const std::string& question) {
    conversation_.add("user", question);
    GenerateRequest request;
    request.prompt_ids = conversation_.prompt().ids;
    request.max_tokens = flags_.max_tokens;
    request.sampling = flags_.sampling.params;
    // Another seed for every turn, the same ones for the same --seed.
    request.sampling.seed += conversation_.messages().size() / 2;
    request.should_cancel = interrupted;
    ProgressBar bar("reading", !flags_.output.quiet);
    request.on_progress = [&bar](int n_read, int n_total) {
      bar.update(static_cast<double>(n_read) / n_total);
    };
    request.on_chunk = [&](const OutputChunk& chunk) {
      bar.finish();
      write_chunk(chunk, color_);
    };
    try {
      const InterruptTarget target(session_);
      last_ = session_.generate(request);
    } catch (const Error& error) {
      conversation_.remove_last();
      if (error.code() != ErrorCode::kContextFull) throw;
      print_warning(std::string(error.what()) + "; /reset starts anew");
      return;
    }
    write_stdout("\n");
    conversation_.add("assistant", last_->text);
    if (last_->finish_reason == "length") print_note("cut off: " + last_->stats.note);
  }

  const ChatCommandFlags& flags_;
  LoadedPair pair_;
  Session session_;
  bool color_, interactive_;
  Conversation conversation_;
  std::optional<GenerateResult> last_;
};

}  // namespace

int run_chat(const Arguments& arguments) {
  ChatCommandFlags flags;
  ArgParser parser(
      "chat", "-m FILE [OPTIONS]",
      "A conversation: each line of standard input is a message. What was said before is "
      "not read again. Commands: /reset /stats /exit.");
  add_model_flags(parser, flags.model);
  parser.add(opt::kDecoderNCtx, &flags.model.n_ctx);
  add_draft_model_flags(parser, flags.model);
  parser.section("Chat");
  add_chat_flags(parser, flags.chat);
  parser.add(opt::kCallMaxTokens, &flags.max_tokens);
  add_sampling_flags(parser, flags.sampling);
  add_draft_flags(parser, flags.draft);
  add_output_flags(parser, flags.output);
  parser.add(opt::kOutputNoColor, &flags.output.no_color);
  if (!parser.parse(arguments)) {
    write_stdout(parser.help());
    return kExitOk;
  }
  check_model_flags(parser, flags.model);
  check_draft_flags(parser, flags.model, flags.draft);
  flags.sampling.params = resolve_sampling(flags.sampling);
  return ChatCommand(flags, load_pair(flags.model, flags.draft, flags.output)).run();
}

}  // namespace specdec::cli
