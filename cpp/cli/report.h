// A generation told to machines and to people.
#pragma once

#include <string>

#include "cli/json.h"
#include "engine/session.h"

namespace specdec::cli {

// Every figure of DecodeStats.
void write_stats(JsonWriter& json, const DecodeStats& stats, double load_ms);
void write_logprobs(JsonWriter& json, const std::vector<TokenLogprobs>& logprobs,
                    const LoadedModel& model);

// A piece of text on stdout; with `color`, tokens from a draft stand out.
void write_chunk(const OutputChunk& chunk, bool color);

// One target pass, on stderr: `round 3: ngram drafted 4 " the" " cat" " in" " a", accepted 3, then
// " hat" (correction); fixed length`.
void print_round(const RoundInfo& round, const LoadedModel& model);

// The line that explains the speed, on stderr.
void print_speed(const GenerateResult& result, const LoadedModel& target);

}  // namespace specdec::cli
