// `specdec perplexity`: how well a model predicts a text.

#include <cstdio>
#include <string>

#include "base/error.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/perplexity.h"

namespace specdec::cli {

int run_perplexity(const Arguments& arguments) {
  ModelFlags model_flags;
  PromptFlags prompt_flags;
  OutputFlags output;
  TextPerplexityOptions options;
  ArgParser parser(
      "perplexity", "-m FILE -f FILE [OPTIONS]",
      "Reads a text in windows that do not overlap and scores the second half of each. "
      "Special tokens in the text are not recognised. Here -c is the window (default 512).");
  add_model_flags(parser, model_flags);
  parser.add(opt::kPerplexityWindow, &model_flags.n_ctx);
  add_prompt_flags(parser, prompt_flags);
  parser.section("Perplexity");
  parser.add(opt::kPerplexityChunks, &options.n_chunks);
  add_output_flags(parser, output);
  parser.add(opt::kOutputJson, &output.json);
  if (!parser.parse(arguments)) {
    write_stdout(parser.help());
    return kExitOk;
  }
  check_model_flags(parser, model_flags);
  const std::string text = read_prompt(parser, prompt_flags);
  const auto model = load_model(model_flags.model, model_flags, output);

  ProgressBar bar("perplexity", !output.quiet);
  options.n_ctx = model_flags.n_ctx;
  options.kv_type = model_flags.kv_type;
  options.cancel = &interrupt_flag();
  options.on_progress = [&bar](int done, int total, double) {
    bar.update(static_cast<double>(done) / total);
  };
  const TextPerplexity result = measure_text_perplexity(*model, text, options);
  bar.finish();
  if (output.json) {
    JsonWriter json;
    json.begin_object()
        .member("model", model->info().path)
        .member("perplexity", result.perplexity)
        .member("standard_error", result.standard_error)
        .member("mean_nll", result.mean_nll)
        .member("n_tokens_scored", result.n_tokens_scored)
        .member("n_tokens_read", result.n_tokens_read)
        .member("chunks", result.n_chunks)
        .member("n_ctx", options.n_ctx)
        .member("total_ms", result.total_ms)
        .member("load_ms", model->info().load_ms)
        .member("tokens_per_second", result.tokens_per_second)
        .end_object();
    write_stdout(json.text() + "\n");
  } else {
    char line[160];
    std::snprintf(line, sizeof line, "perplexity %.4f +/- %.4f over %lld tokens in %d windows\n",
                  result.perplexity, result.standard_error,
                  static_cast<long long>(result.n_tokens_scored), result.n_chunks);
    write_stdout(line);
  }
  if (!output.quiet) {
    char line[80];
    std::snprintf(line, sizeof line, "%.1f tokens/s read", result.tokens_per_second);
    print_note(line);
  }
  return kExitOk;
}

}  // namespace specdec::cli
