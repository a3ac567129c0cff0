// The tokenizer's part of a model file, as stored: nothing is checked but the types.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace specdec {

struct VocabData {
  std::string path;   // for messages
  std::string model;  // tokenizer.ggml.model: "gpt2" or "llama"
  std::optional<std::string> pre;
  std::vector<std::string_view> tokens;  // views into the file
  std::optional<std::vector<float>> scores;
  std::optional<std::vector<std::int32_t>> token_types;
  std::optional<std::vector<std::string_view>> merges;

  // tokenizer.ggml.<name>_token_id
  struct SpecialId {
    std::string_view name;  // "bos", "eos", ...: see kSpecialIdNames
    std::int64_t id;
  };
  std::vector<SpecialId> special_ids;  // those the file gives

  std::optional<bool> add_bos;
  std::optional<bool> add_eos;
  std::optional<bool> add_space_prefix;
  std::string chat_template;
};

inline constexpr std::string_view kSpecialIdNames[] = {
    "bos",  "eos",     "eot",     "eom",     "unknown", "seperator", "padding",
    "mask", "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep",   "fim_sep",
};

}  // namespace specdec
