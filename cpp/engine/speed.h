// How fast a generation was, and why.
#pragma once

#include <cstdint>
#include <string>

#include "decode/stats.h"
#include "engine/loaded_model.h"

namespace specdec {

// Bytes per second this machine reads from memory with n_threads threads of the pool (0: all
// cores): the best of a few passes over a buffer of n_bytes. Takes a fraction of a second.
[[nodiscard]] double measure_read_bandwidth(int n_threads, std::uint64_t n_bytes);

// The same over 256 MB, measured once per process and thread count. Thread-safe.
[[nodiscard]] double read_bandwidth(int n_threads);

// Whether a pass reads more weights than caches usually hold. The share of the memory's speed tells
// nothing about smaller models, and measuring it takes longer than a short answer of theirs.
[[nodiscard]] bool is_read_from_memory(const ModelInfo& target);

// Weight bytes the target's passes read per second of verify_ms, as a share of `bandwidth`; 0 if
// unknown.
[[nodiscard]] double bandwidth_share(const DecodeStats& stats, const ModelInfo& target,
                                     double bandwidth);

// One line for people: tokens/s, ms/token, share of `bandwidth` (0: left out), acceptance per
// position, mean tokens per round, shares of draft, verify and sample in the decoding time.
[[nodiscard]] std::string speed_line(const DecodeStats& stats, const ModelInfo& target,
                                     double bandwidth);

}  // namespace specdec
