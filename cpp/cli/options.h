// Option groups that several subcommands share, and what they turn into.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/args.h"
#include "engine/loaded_model.h"
#include "sampling/params.h"

namespace specdec::cli {

struct OutputFlags {
  bool json = false;
  bool quiet = false;
  bool verbose = false;
  bool no_color = false;
};

struct ModelFlags {
  std::string model;
  std::string draft;
  int n_ctx = 0;
  int n_threads = 0;
  std::string kv_type = "f16";
  std::string draft_quant;
  std::string repack = "auto";
  std::string device = "auto";
  int n_gpu_layers = -1, n_gpu_layers_draft = -1;  // -1: as many as fit
  std::uint64_t vram_budget = 0;
  bool check_tensors = false;
};

struct PromptFlags {
  std::string prompt, file;
  bool escape = false;
};

struct SamplingFlags {
  SamplingParams params;
  std::optional<std::uint64_t> seed;  // empty: a new one
};

// Model and threads, without the context length, whose meaning differs between commands.
void add_model_flags(ArgParser& parser, ModelFlags& flags);
void add_draft_model_flags(ArgParser& parser, ModelFlags& flags);
// Parts of both, for commands that load nothing.
void add_gpu_flags(ArgParser& parser, ModelFlags& flags);
void add_draft_gpu_flag(ArgParser& parser, ModelFlags& flags);
void add_prompt_flags(ArgParser& parser, PromptFlags& flags);
void add_sampling_flags(ArgParser& parser, SamplingFlags& flags);
// --quiet and --verbose; which of the others a command has is its own affair.
void add_output_flags(ArgParser& parser, OutputFlags& flags);

// Throws UsageError when -m is missing, or flags of a draft model were given without one.
void check_model_flags(const ArgParser& parser, const ModelFlags& flags);

// The text of -p or -f ("-": standard input); one final newline of a file is dropped. UsageError
// unless exactly one was given.
[[nodiscard]] std::string read_prompt(const ArgParser& parser, const PromptFlags& flags);
[[nodiscard]] std::string read_file(const std::string& path);

// Params with the seed filled in: --seed -1 draws one.
[[nodiscard]] SamplingParams resolve_sampling(const SamplingFlags& flags);

// Loads with a progress bar; Ctrl-C ends the process.
[[nodiscard]] std::shared_ptr<const LoadedModel> load_model(const std::string& path,
                                                            const ModelFlags& flags,
                                                            const OutputFlags& output,
                                                            bool is_draft = false);
// How the flags say a model is loaded.
[[nodiscard]] ModelOptions model_options(const ModelFlags& flags, bool is_draft);

}  // namespace specdec::cli
