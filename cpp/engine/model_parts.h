// A model in several files, as llama.cpp cuts, names and marks them: NAME-00001-of-00003.gguf.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace specdec {

// Of one part; 0: none. A tensor that is larger than max_bytes has a part of its own.
struct PartLimits {
  std::uint64_t max_bytes = 0;
  int max_tensors = 0;
};

// "2G" or "500M": a whole number and K, M or G, powers of 1000; "": 0. Throws
// Error(kInvalidArgument).
[[nodiscard]] std::uint64_t parse_part_bytes(const std::string& text);

// Where each part ends: numbers of tensors, of which these are the sizes. Never empty. Throws
// Error(kInvalidArgument) when there are too many.
[[nodiscard]] std::vector<std::size_t> part_ends(const std::vector<std::uint64_t>& tensor_bytes,
                                                 const PartLimits& limits);

// The names of the parts; of one part the name as it is.
[[nodiscard]] std::vector<std::string> part_paths(const std::string& target, std::size_t n_parts);

}  // namespace specdec
