// `specdec quantize IN OUT TYPE`: writes a model again in a smaller type.

#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/quantize_file.h"

namespace specdec::cli {
namespace {

std::string shape_text(const std::vector<std::uint64_t>& shape) {
  std::string out;
  for (const std::uint64_t n : shape) out += (out.empty() ? "" : " x ") + std::to_string(n);
  return out;
}

// A type for one tensor: any weight format that can be written.
DType weight_format(const std::string& option, const std::string& name) {
  const std::string problem = format_problem(name);
  if (!problem.empty()) throw UsageError(option + " " + problem);
  return *parse_dtype(name);
}

std::string percent(double ratio) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f %%", 100 * ratio);
  return text;
}

std::string tensor_line(const QuantizedTensor& tensor, bool dry_run) {
  char text[256];
  const bool copied = tensor.from == tensor.to;
  std::string what = dtype_traits(tensor.from).name;
  if (!copied) what += std::string(" -> ") + dtype_traits(tensor.to).name;
  std::snprintf(text, sizeof text, "%-36s %-16s %-13s %11s", printable(tensor.name, 64).c_str(),
                shape_text(tensor.shape).c_str(), what.c_str(),
                human_bytes(static_cast<double>(tensor.target_bytes)).c_str());
  std::string line = text;
  if (copied) {
    line += "  kept";
  } else if (!dry_run) {
    line += "  error " + percent(tensor.relative_error);
  }
  if (!tensor.note.empty()) line += "  (" + tensor.note + ")";
  return line + "\n";
}

// "180 Q4_K, 31 Q6_K, 61 F32", the most frequent type first.
std::string types_text(const QuantizeResult& result) {
  std::map<std::string, std::size_t> counts;
  for (const QuantizedTensor& tensor : result.tensors) ++counts[dtype_traits(tensor.to).name];
  std::vector<std::pair<std::string, std::size_t>> sorted(counts.begin(), counts.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string out;
  for (const auto& [name, n] : sorted)
    out += (out.empty() ? "" : ", ") + std::to_string(n) + " " + name;
  return out;
}

std::string summary(const QuantizeResult& result, bool dry_run) {
  char text[256];
  std::snprintf(text, sizeof text, "%s: %s %s %s, %.2f bits per weight", result.type.c_str(),
                human_bytes(static_cast<double>(result.source_bytes)).c_str(),
                dry_run ? "would become" : "->",
                human_bytes(static_cast<double>(result.target_bytes)).c_str(),
                result.bits_per_weight);
  std::string line = text;
  if (result.files.size() > 1) line += ", " + std::to_string(result.files.size()) + " parts";
  if (!dry_run) {
    std::snprintf(text, sizeof text, ", error %s, %.1f s on %d thread%s",
                  percent(result.relative_error).c_str(), result.total_ms / 1000, result.n_threads,
                  result.n_threads == 1 ? "" : "s");
    line += text;
  }
  return line + "\n";
}

void print_json(const QuantizeResult& result, const std::string& source, const std::string& target,
                bool dry_run) {
  JsonWriter json;
  json.begin_object()
      .member("source", source)
      .member("target", target)
      .member("type", result.type)
      .member("dry_run", dry_run)
      .member("source_bytes", result.source_bytes)
      .member("target_bytes", result.target_bytes)
      .member("n_weights", result.n_weights)
      .member("bits_per_weight", result.bits_per_weight);
  json.key("relative_error");
  if (dry_run) {
    json.null();
  } else {
    json.value(result.relative_error);
  }
  json.member("total_ms", result.total_ms).member("n_threads", result.n_threads);
  json.member("files", result.files);
  json.key("tensors").begin_array();
  for (const QuantizedTensor& tensor : result.tensors) {
    json.begin_object()
        .member("name", tensor.name)
        .member("shape", tensor.shape)
        .member("from", dtype_traits(tensor.from).name)
        .member("to", dtype_traits(tensor.to).name)
        .member("source_bytes", tensor.source_bytes)
        .member("target_bytes", tensor.target_bytes)
        .member("note", tensor.note);
    if (!dry_run) {
      json.member("relative_error", tensor.relative_error)
          .member("largest_error", tensor.largest_error);
    }
    json.end_object();
  }
  json.end_array().end_object();
  write_stdout(json.text() + "\n");
}

}  // namespace

int run_quantize(const Arguments& arguments) {
  std::string source, target, type;
  QuantizeOptions options;
  OutputFlags output;
  ArgParser parser("quantize", "IN OUT TYPE [OPTIONS]",
                   "Writes the model IN to OUT with its matrices in TYPE; norms, biases and other "
                   "vectors stay F32. OUT appears only when it is complete.");
  parser.positional("IN", &source, "A GGUF file, best in F16, BF16 or F32.");
  parser.positional("OUT", &target, "The file to write; with --dry-run it may be left out as -.");
  std::string types;
  for (const FileType& known : file_types()) types += std::string(" ") + known.name;
  parser.positional("TYPE", &type, "One of" + types + "; Q3_K, Q4_K and Q5_K mean the small mix.");
  parser.add(opt::kModelNThreads, &options.n_threads);
  parser.add(opt::kQuantizeDryRun, &options.dry_run);
  parser.add(opt::kQuantizeOverwrite, &options.overwrite);
  parser.section("Which type each tensor gets");
  parser.add(opt::kQuantizePure, &options.choices.pure);
  parser.add(opt::kQuantizeAllowRequantize, &options.choices.allow_requantize);
  parser.add(opt::kQuantizeLeaveOutputTensor, &options.choices.leave_output);
  const auto format = [](const OptionSpec& spec, std::optional<DType>& to) {
    return [&spec, &to](const std::string& name) { to = weight_format(flag_name(spec), name); };
  };
  parser.add(opt::kQuantizeOutputTensorType,
             format(opt::kQuantizeOutputTensorType, options.choices.output_type));
  parser.add(opt::kQuantizeTokenEmbeddingType,
             format(opt::kQuantizeTokenEmbeddingType, options.choices.token_embedding_type));
  parser.section("Several files");
  parser.add(opt::kQuantizeSplitMaxSize, [&options](const std::string& text) {
    options.parts.max_bytes = parse_part_bytes(text);
  });
  parser.add(opt::kQuantizeSplitMaxTensors, &options.parts.max_tensors);
  parser.section("Output");
  parser.add(opt::kOutputQuiet, &output.quiet);
  parser.add(opt::kOutputVerbose, &output.verbose);
  parser.add(opt::kOutputJson, &output.json);
  parser.epilogue(
      "Example: specdec quantize model-f16.gguf model-q4_k_m.gguf Q4_K_M\n"
      "The error is the root of sum (y - x)^2 / sum x^2 over the weights x and what they became.");
  if (!parser.parse(arguments)) {
    write_stdout(parser.help());
    return kExitOk;
  }
  if (type.empty()) throw UsageError("quantize takes three names: IN OUT TYPE");

  ProgressBar bar("quantizing", !output.quiet);
  options.cancel = &interrupt_flag();
  options.on_progress = [&bar](std::uint64_t done, std::uint64_t total, const std::string&) {
    bar.update(static_cast<double>(done) / static_cast<double>(total));
  };
  const QuantizeResult result = quantize_file(source, target, type, options);
  bar.finish();
  if (output.json) {
    print_json(result, source, target, options.dry_run);
    return kExitOk;
  }
  std::string text;
  if (output.verbose) {
    for (const QuantizedTensor& tensor : result.tensors) {
      text += tensor_line(tensor, options.dry_run);
    }
  } else if (!output.quiet) {
    text = "tensors: " + types_text(result) + "; -v lists them\n";
  }
  write_stdout(text + summary(result, options.dry_run));
  return kExitOk;
}

}  // namespace specdec::cli
