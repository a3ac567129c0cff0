#include "cli/report.h"

#include "backend/device_backend.h"
#include "base/error.h"
#include "cli/terminal.h"
#include "engine/speed.h"
#include "tokenizer/tokenizer.h"

namespace specdec::cli {

void write_stats(JsonWriter& json, const DecodeStats& stats, double load_ms) {
  json.begin_object()
      .member("tokens_per_second", stats.tokens_per_second())
      .member("decode_ms", stats.decode_ms)
      .member("prompt_ms", stats.prompt_ms)
      .member("total_ms", stats.total_ms)
      .member("load_ms", load_ms)
      .member("calibration_ms", stats.calibration_ms)
      .member("time_to_first_token_ms", stats.time_to_first_token_ms)
      .member("emitted", stats.emitted)
      .member("prompt_tokens", stats.prompt_tokens)
      .member("reused_prompt_tokens", stats.reused_prompt_tokens)
      .member("reread_tokens", stats.reread_tokens)
      .member("draft_reread_tokens", stats.draft_reread_tokens)
      .member("reproducible", stats.reproducible)
      .member("speculation", stats.speculation)
      .member("rounds", stats.rounds)
      .member("plain_steps", stats.plain_steps)
      .member("drafted", stats.drafted)
      .member("accepted", stats.accepted)
      .member("accepted_cut", stats.accepted_cut)
      .member("cut", stats.cut)
      .member("drafted_per_position", stats.drafted_per_position)
      .member("accepted_per_position", stats.accepted_per_position)
      .member("accepted_histogram", stats.accepted_histogram)
      .member("acceptance_rate", stats.acceptance_rate())
      .member("mean_acceptance_length", stats.mean_acceptance_length())
      .member("candidate_positions", stats.candidate_positions)
      .member("candidate_acceptance", stats.candidate_acceptance())
      .member("in_set", stats.in_set())
      .member("draft_ms", stats.draft_ms)
      .member("verify_ms", stats.verify_ms)
      .member("sample_ms", stats.sample_ms)
      .member("device_ms", stats.device_ms)
      .member("note", stats.note)
      .end_object();
}

void write_logprobs(JsonWriter& json, const std::vector<TokenLogprobs>& logprobs,
                    const LoadedModel& model) {
  const Tokenizer& tokenizer = model.tokenizer();
  const auto text_of = [&](TokenId id) {
    return tokenizer.is_hidden(id) ? tokenizer.token_text(id) : tokenizer.token_bytes(id);
  };
  const auto token = [&](TokenId id, double logprob) {
    json.member("id", id).member("token", text_of(id)).member("logprob", logprob);
  };
  json.begin_array();
  for (const TokenLogprobs& entry : logprobs) {
    json.begin_object();
    token(entry.token, entry.logprob);
    json.key("top").begin_array();
    for (const auto& [id, logprob] : entry.top) {
      json.begin_object();
      token(id, logprob);
      json.end_object();
    }
    json.end_array().end_object();
  }
  json.end_array();
}

void write_chunk(const OutputChunk& chunk, bool color) {
  if (!color) {
    write_stdout(chunk.text);
    return;
  }
  std::string out;
  std::size_t begin = 0;
  bool green = false;
  for (std::size_t i = 0; i < chunk.text_ends.size(); ++i) {
    const std::string piece = chunk.text.substr(begin, chunk.text_ends[i] - begin);
    begin = chunk.text_ends[i];
    if (piece.empty()) continue;
    if (green != chunk.from_draft[i]) out += green ? kResetColor : kDraftColor;
    green = chunk.from_draft[i];
    out += piece;
  }
  if (green) out += kResetColor;
  out += chunk.text.substr(begin);
  write_stdout(out);
}

void print_round(const RoundInfo& round, const LoadedModel& model) {
  const Tokenizer& tokenizer = model.tokenizer();
  const auto spelled = [&](TokenId id) {
    JsonWriter text;  // quoted as JSON does: one line, whatever the bytes
    text.value(tokenizer.is_hidden(id) ? tokenizer.token_text(id) : tokenizer.token_bytes(id));
    return text.text();
  };
  std::string line = "round " + std::to_string(round.index + 1) + ": ";
  if (round.drafted.empty()) {
    line += "plain, " + spelled(round.next_token);
  } else {
    line += std::string(round.drafter) + " drafted " + std::to_string(round.drafted.size());
    for (std::size_t i = 0; i < round.drafted.size(); ++i) {
      line += " " + spelled(round.drafted[i]);
      // Where a branch of a tree hangs.
      if (!round.parents.empty() && round.parents[i] != static_cast<std::int32_t>(i) - 1) {
        line += "@" + std::to_string(round.parents[i] + 1);
      }
    }
    line += ", accepted " + std::to_string(round.accepted.size()) + ", then " +
            spelled(round.next_token) + " (" + std::string(round.outcome()) + ")";
  }
  print_note(line + "; " + std::string(round.reason));
}

void print_speed(const GenerateResult& result, const LoadedModel& target) {
  double bandwidth = 0;
  const ModelInfo& info = target.info();
  if (info.n_gpu_layers > 0) {
    // Of a model in two memories no share means anything.
    if (info.n_gpu_layers == info.n_layers)
      bandwidth = target.gpu()->device_info().copy_bytes_per_second;
    print_note(speed_line(result.stats, info, bandwidth));
    if (!result.stats.note.empty()) print_note(result.stats.note);
    return;
  }
  // Measuring takes a moment, which somebody who pressed Ctrl-C does not want to wait, and memory,
  // which somebody who leaves the weights in the file wants to save.
  if (result.stats.emitted > 0 && result.finish_reason != "cancelled" && info.repack != "off" &&
      is_read_from_memory(info)) {
    try {
      bandwidth = read_bandwidth(target.info().n_threads);
    } catch (const Error&) {  // no memory to measure with: the line does without
    }
  }
  print_note(speed_line(result.stats, target.info(), bandwidth));
  if (!result.stats.note.empty()) print_note(result.stats.note);
}

}  // namespace specdec::cli
