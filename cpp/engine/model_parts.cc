#include "engine/model_parts.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdio>

#include "base/checked.h"
#include "base/error.h"

namespace specdec {
namespace {

constexpr std::size_t kMostParts = 500;  // each is a file that is open until all are complete
constexpr std::string_view kSuffix = ".gguf";

// Whether a name ends in "-00001-of-00003".
bool is_numbered(std::string_view stem) {
  constexpr std::string_view kForm = "-ddddd-of-ddddd";
  if (stem.size() < kForm.size()) return false;
  const std::string_view end = stem.substr(stem.size() - kForm.size());
  return std::equal(end.begin(), end.end(), kForm.begin(), [](char c, char form) {
    return form == 'd' && c != 'd' ? std::isdigit(static_cast<unsigned char>(c)) != 0 : c == form;
  });
}

}  // namespace

std::uint64_t parse_part_bytes(const std::string& text) {
  if (text.empty()) return 0;
  std::uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [unit, error] = std::from_chars(text.data(), end, number);
  std::uint64_t factor = 0;
  if (error == std::errc() && unit + 1 == end) {
    const int letter = std::toupper(static_cast<unsigned char>(*unit));
    if (letter == 'K') factor = 1000;
    if (letter == 'M') factor = 1'000'000;
    if (letter == 'G') factor = 1'000'000'000;
  }
  const auto n_bytes = checked_mul(number, factor);
  if (!n_bytes || *n_bytes == 0) {
    throw_invalid(
        "split_max_size must be a whole number and K, M or G (powers of 1000), as 2G or 500M, "
        "got '" +
        printable(text) + "'");
  }
  return *n_bytes;
}

std::vector<std::size_t> part_ends(const std::vector<std::uint64_t>& tensor_bytes,
                                   const PartLimits& limits) {
  std::vector<std::size_t> ends;
  std::size_t first = 0;
  std::uint64_t n_bytes = 0;
  for (std::size_t i = 0; i < tensor_bytes.size(); ++i) {
    bool full = limits.max_tensors > 0 && i - first >= static_cast<std::size_t>(limits.max_tensors);
    full |= limits.max_bytes > 0 && n_bytes + tensor_bytes[i] > limits.max_bytes;
    if (full && i > first) {
      ends.push_back(i);
      first = i;
      n_bytes = 0;
    }
    n_bytes += tensor_bytes[i];
  }
  ends.push_back(tensor_bytes.size());
  if (ends.size() > kMostParts) {
    throw_invalid("that makes " + std::to_string(ends.size()) + " parts, and " +
                  std::to_string(kMostParts) + " are the most; allow larger ones");
  }
  return ends;
}

std::vector<std::string> part_paths(const std::string& target, std::size_t n_parts) {
  if (n_parts == 1) return {target};
  std::string stem = target;
  if (stem.ends_with(kSuffix)) stem.resize(stem.size() - kSuffix.size());
  if (is_numbered(stem)) {
    throw_invalid(printable(target, 512) +
                  ": parts get their numbers by themselves; give the name without them");
  }
  std::vector<std::string> paths;
  for (std::size_t i = 1; i <= n_parts; ++i) {
    char number[64];
    std::snprintf(number, sizeof number, "-%05zu-of-%05zu.gguf", i, n_parts);
    paths.push_back(stem + number);
  }
  return paths;
}

}  // namespace specdec
