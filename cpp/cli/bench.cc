// `specdec bench`: what a pass of M rows costs, against the memory roof.

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <memory>
#include <string>

#include "backend/cpu/wide/self_check.h"
#include "base/cpu_isa.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/bench.h"
#include "gguf/reader.h"
#include "model/arch/arch.h"
#include "model/draft_head.h"

namespace specdec::cli {
namespace {

std::vector<int> parse_rows(const std::string& text) {
  std::vector<int> rows;
  const char* at = text.data();
  const char* end = at + text.size();
  while (at != end) {
    int value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    if (error != std::errc() || value < 1 || value > 512 || (next != end && *next != ',') ||
        next + 1 == end) {
      throw UsageError("--rows is " + quoted(text) +
                       "; expected numbers from 1 to 512 separated by commas");
    }
    rows.push_back(value);
    at = next == end ? end : next + 1;
  }
  if (rows.empty())
    throw UsageError("--rows is empty; expected numbers from 1 to 512 separated by commas");
  return rows;
}

template <typename... Values>
std::string format(const char* pattern, Values... values) {
  char text[240];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

// One measured model in numbers.
struct Summary {
  const ModelInfo& info;
  const BenchOptions& options;
  const BenchResult& result;

  [[nodiscard]] double t_ms(std::size_t i) const { return median(result.times_ms[i]); }
  [[nodiscard]] double t_first() const { return t_ms(0); }
  [[nodiscard]] double read_gb_s() const { return median(result.read_bandwidth) / 1e9; }
  [[nodiscard]] double weight_gb() const { return static_cast<double>(info.bytes_per_step) / 1e9; }
  // Of the weights, what the last-level cache can hold.
  [[nodiscard]] double cache_share() const {
    const auto weights = static_cast<double>(info.bytes_per_step);
    return weights > 0 ? std::min(1.0, static_cast<double>(result.cache_bytes) / weights) : 0;
  }
  [[nodiscard]] bool all_on_gpu() const {
    return info.n_gpu_layers > 0 && info.n_gpu_layers == info.n_layers;
  }
  [[nodiscard]] double share() const {
    if (info.n_gpu_layers > 0 && !all_on_gpu()) return 0;  // two memories
    const auto one = std::find(options.rows.begin(), options.rows.end(), 1);
    if (one == options.rows.end()) return 0;
    return weight_gb() / (t_ms(static_cast<std::size_t>(one - options.rows.begin())) / 1000) /
           read_gb_s();
  }
};

// Members of the object that is open.
void write_json(JsonWriter& json, const Summary& s) {
  json.member("model", s.info.path)
      .member("quantisation", s.info.quantisation)
      .member("isa", std::string(cpu_isa_name(working_cpu_isa(active_cpu_isa()))))
      .member("n_threads", s.info.n_threads)
      .member("ctx", s.options.n_ctx)
      .member("rounds", s.options.n_rounds);
  json.key("t_ms").begin_object();
  for (std::size_t i = 0; i < s.options.rows.size(); ++i)
    json.member(std::to_string(s.options.rows[i]), s.t_ms(i));
  json.end_object();
  json.key("t_min_ms").begin_object();
  for (std::size_t i = 0; i < s.options.rows.size(); ++i) {
    json.member(std::to_string(s.options.rows[i]),
                *std::min_element(s.result.times_ms[i].begin(), s.result.times_ms[i].end()));
  }
  json.end_object();
  json.key("t_max_ms").begin_object();
  for (std::size_t i = 0; i < s.options.rows.size(); ++i) {
    json.member(std::to_string(s.options.rows[i]),
                *std::max_element(s.result.times_ms[i].begin(), s.result.times_ms[i].end()));
  }
  json.end_object();
  json.key("times_ms").begin_object();
  for (std::size_t i = 0; i < s.options.rows.size(); ++i) {
    json.member(std::to_string(s.options.rows[i]), s.result.times_ms[i]);
  }
  json.end_object();
  json.key("ratio").begin_object();
  for (std::size_t i = 0; i < s.options.rows.size(); ++i) {
    json.member(std::to_string(s.options.rows[i]), s.t_ms(i) / s.t_first());
  }
  json.end_object();
  if (!s.result.device_ms.empty()) {
    json.key("device_ms").begin_object();
    for (std::size_t i = 0; i < s.options.rows.size(); ++i)
      json.member(std::to_string(s.options.rows[i]), median(s.result.device_ms[i]));
    json.end_object();
  }
  json.member("device", s.info.device)
      .member("n_gpu_layers", s.info.n_gpu_layers)
      .member("gpu_bytes", s.info.gpu_bytes)
      .member("placement", s.info.placement)
      .member("read_gb_s", s.read_gb_s())
      .member("weight_gb", s.weight_gb())
      .member("bandwidth_share", s.share())
      .member("cache_bytes", s.result.cache_bytes)
      .member("cache_share", s.cache_share())
      .member("spread", s.result.spread)
      .member("stolen_share", s.result.stolen_share)
      .member("noisy", s.result.noisy())
      .member("load_ms", s.info.load_ms);
}

void write_table(const Summary& s) {
  std::string out = s.info.path + "  (" + s.info.quantisation + ")\n";
  if (s.info.n_gpu_layers > 0) out += s.info.device + "\n";
  out += format("%s, %d threads, context %d, %d rounds; weights %.3f GB, %s %.1f GB/s\n",
                cpu_isa_name(working_cpu_isa(active_cpu_isa())), s.info.n_threads, s.options.n_ctx,
                s.options.n_rounds, s.weight_gb(),
                s.all_on_gpu() ? "GPU memory copies" : "memory reads", s.read_gb_s());
  for (const std::string& line : s.info.placement) out += line + "\n";
  const bool gpu = !s.result.device_ms.empty();
  out += std::string("  rows  median ms     min ms     max ms  T(M)/T(first)  tokens/s") +
         (gpu ? "     GPU ms\n" : "\n");
  for (std::size_t i = 0; i < s.options.rows.size(); ++i) {
    const auto [least, most] =
        std::minmax_element(s.result.times_ms[i].begin(), s.result.times_ms[i].end());
    out += format("%6d %10.2f %10.2f %10.2f %14.2f %9.1f", s.options.rows[i], s.t_ms(i), *least,
                  *most, s.t_ms(i) / s.t_first(), 1000.0 * s.options.rows[i] / s.t_ms(i));
    out += gpu ? format(" %10.2f\n", median(s.result.device_ms[i])) : std::string("\n");
  }
  if (s.share() > 0)
    out += format("one row reads its weights at %.0f %% of the memory's speed\n", 100 * s.share());
  if (s.cache_share() > 0.1 && s.info.n_gpu_layers == 0) {
    out += format(
        "the last-level cache of %.0f MB can hold %.0f %% of the weights: beside other "
        "programs passes are slower\n",
        static_cast<double>(s.result.cache_bytes) / 1e6, 100 * s.cache_share());
  }
  if (s.result.noisy()) {
    out += format(
        "a busy machine: times of a row count differ by %.0f %%, and the host gave %.1f "
        "%% of the processors' time to others; measure again\n",
        100 * s.result.spread, 100 * s.result.stolen_share);
  }
  write_stdout(out);
}

// A head reads what its target's layers say: alone there is no pass of it to time.
void require_measurable(const std::string& draft) {
  const std::shared_ptr<const GgufFile> opened = GgufFile::open(draft);
  const GgufFile& file = *opened;
  const ArchSpec* const arch = find_arch(file.get_string("general.architecture", ""));
  if ((arch == nullptr || !arch->draft_head) && !has_only_next_tokens(file)) return;
  throw Error(ErrorCode::kUnsupported,
              printable(draft, 400) +
                  " is a head, which has no passes of its own to time: leave out -md, or time the "
                  "pair with specdec generate");
}

}  // namespace

int run_bench(const Arguments& arguments) {
  ModelFlags model_flags;
  OutputFlags output;
  BenchOptions options;
  std::string rows;
  int n_ctx = 0;
  bool kernels = false;
  ArgParser parser("bench", "-m FILE [-md FILE] [OPTIONS]",
                   "Times whole forward passes of M rows, all row counts in turn in every round, "
                   "another one first each time: what verifying a draft costs. Up to 16 rows all "
                   "go through the output head.");
  add_model_flags(parser, model_flags);
  add_draft_model_flags(parser, model_flags);
  parser.section("Benchmark");
  parser.add(opt::kBenchRows, &rows);
  parser.add(opt::kBenchCtx, &n_ctx);
  parser.add(opt::kBenchRounds, &options.n_rounds);
  parser.add(opt::kBenchKernels, &kernels);
  add_output_flags(parser, output);
  parser.add(opt::kOutputJson, &output.json);
  if (!parser.parse(arguments)) {
    write_stdout(parser.help());
    return kExitOk;
  }
  check_model_flags(parser, model_flags);
  options.rows = parse_rows(rows);
  // The cache that a GPU reserves.
  model_flags.n_ctx = n_ctx + *std::max_element(options.rows.begin(), options.rows.end());
  options.n_ctx = n_ctx;
  options.kv_type = model_flags.kv_type;
  options.cancel = &interrupt_flag();

  if (!model_flags.draft.empty()) require_measurable(model_flags.draft);  // before minutes of work
  JsonWriter json;
  json.begin_object();
  const auto measure = [&](const std::string& path, bool is_draft) {
    const auto model = load_model(path, model_flags, output, is_draft);
    ProgressBar bar("bench", !output.quiet);
    options.on_progress = [&bar](double fraction) { bar.update(fraction); };
    const BenchResult result = bench_forward(*model, options);
    bar.finish();
    const Summary summary{model->info(), options, result};
    if (output.json) {
      write_json(json, summary);
    } else {
      write_table(summary);
    }
  };
  measure(model_flags.model, false);
  if (!model_flags.draft.empty()) {
    json.key("draft").begin_object();
    measure(model_flags.draft, true);
    json.end_object();
  }
  if (kernels) {
    const auto table = bench_kernels(model_flags.n_threads, options.n_rounds, &interrupt_flag());
    json.key("kernels").begin_array();
    std::string text = "format   GB/s at 1 row   GMAC/s at 8 rows\n";
    for (const KernelBench& kernel : table) {
      json.begin_object()
          .member("dtype", kernel.dtype)
          .member("gb_s", kernel.bytes_per_second / 1e9)
          .member("gmac_s", kernel.macs_per_second / 1e9)
          .end_object();
      text += format("%-6s %15.1f %18.1f\n", kernel.dtype.c_str(), kernel.bytes_per_second / 1e9,
                     kernel.macs_per_second / 1e9);
    }
    json.end_array();
    if (!output.json) write_stdout(text);
  }
  json.end_object();
  if (output.json) write_stdout(json.text() + "\n");
  return kExitOk;
}

}  // namespace specdec::cli
