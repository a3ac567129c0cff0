// The `specdec` program: finds the subcommand and turns errors into exit codes.

#include <exception>
#include <iterator>
#include <new>
#include <string>
#include <string_view>

#include "backend/cpu/wide/self_check.h"
#include "base/cpu_isa.h"
#include "base/error.h"
#include "base/log.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/terminal.h"

namespace specdec::cli {
namespace {

struct Command {
  const char* name;
  const char* summary;
  int (*run)(const Arguments&);
};

constexpr Command kCommands[] = {
    {"generate", "continue a prompt", run_generate},
    {"chat", "talk with a chat model", run_chat},
    {"bench", "time forward passes of M rows", run_bench},
    {"inspect", "show what a GGUF file or a kept prompt holds, without its weights", run_inspect},
    {"tokenize", "show the tokens of a text", run_tokenize},
    {"perplexity", "measure how well a model predicts a text", run_perplexity},
    {"quantize", "write a model again in a smaller type", run_quantize},
};

std::string main_help() {
  std::string out =
      "Usage: specdec COMMAND [OPTIONS]\n\n"
      "Runs GGUF language models on the CPU, faster by speculative decoding.\n\nCommands:\n";
  for (const Command& command : kCommands) {
    std::string name = command.name;
    name.resize(12, ' ');
    out += "  " + name + command.summary + "\n";
  }
  return out +
         "\nOptions:\n"
         "  -h, --help     Show this text; after a command, its options.\n"
         "  --version      Show the version.\n\n"
         "Exit codes: 0 ok, 1 internal error, 2 usage, 3 bad file, 4 unsupported, 5 out of "
         "memory,\n"
         "disk space or context, 130 interrupted, 143 terminated.\n";
}

int exit_code(const Error& error) {
  const std::string& reason = error.detail().reason;
  if (reason == "disk_full" || reason == "too_many_files") return kExitResource;
  switch (error.code()) {
    case ErrorCode::kInvalidArgument:
      return kExitUsage;
    case ErrorCode::kModelFormat:
    case ErrorCode::kIo:
    case ErrorCode::kNumerical:
      return kExitBadFile;
    case ErrorCode::kUnsupported:
      return kExitUnsupported;
    case ErrorCode::kResource:
    case ErrorCode::kContextFull:
    case ErrorCode::kDevice:
      return kExitResource;
    case ErrorCode::kCancelled:
      return interrupt_exit_code();
    default:
      return kExitInternal;
  }
}

// Without allocating: memory may be what ran out.
void print_error(std::string_view text, std::string_view prefix = "") noexcept {
  write_stderr({"specdec: error: ", prefix, text, "\n"});
}

int dispatch(const Arguments& arguments) {
  if (arguments.empty()) {
    write_stderr(main_help());
    return kExitUsage;
  }
  const std::string& name = arguments[0];
  if (name == "-h" || name == "--help" || name == "help") {
    write_stdout(main_help());
    return kExitOk;
  }
  if (name == "--version" || name == "version") {
    write_stdout(std::string("specdec ") + SPECDEC_VERSION + " (" +
                 cpu_isa_name(working_cpu_isa(active_cpu_isa())) + ")\n");
    return kExitOk;
  }
  for (const Command& command : kCommands) {
    if (name == command.name) return command.run({std::next(arguments.begin()), arguments.end()});
  }
  std::string message = "unknown command " + quoted(name) + "; there are";
  for (const Command& command : kCommands) message += std::string(" ") + command.name;
  throw UsageError(message);
}

// Runs `action`, which may throw anything, and says what was wrong.
template <typename Action>
int report_errors(const Arguments& arguments, Action action) {
  try {
    return action();
  } catch (const UsageError& error) {
    print_error(error.what());
    std::string_view command;
    for (const Command& known : kCommands) {
      if (!arguments.empty() && arguments[0] == known.name) command = known.name;
    }
    write_stderr({"Try 'specdec ", command, command.empty() ? "" : " ", "--help'.\n"});
    return kExitUsage;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kCancelled) {
      write_stderr("specdec: interrupted\n");
    } else {
      print_error(error.what());
    }
    return exit_code(error);
  } catch (const std::bad_alloc&) {
    print_error("out of memory");
    return kExitResource;
  } catch (const std::exception& error) {
    print_error(error.what(), "internal error: ");
    return kExitInternal;
  }
}

}  // namespace

}  // namespace specdec::cli

int main(int argc, char** argv) {
  using namespace specdec;
  cli::Arguments arguments;
  return cli::report_errors(arguments, [&] {
    arguments.assign(argv + (argc > 0 ? 1 : 0), argv + argc);
    set_log_sink([](LogLevel level, const std::string& message) {
      if (level == LogLevel::kWarning) cli::print_warning(message);
    });
    cli::install_interrupt_handler();
    return cli::dispatch(arguments);
  });
}
