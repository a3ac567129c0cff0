// The tokenizer's part of a model file, as stored: nothing is checked but the types.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace specdec {

// When a SentencePiece tokenizer that adds a space in front does so.
enum class SpacePrefix {
  kSegments,     // before the text and after every token that was cut out: sentencepiece, llama.cpp
  kUnlessSpace,  // there, but not before a space ("always" of the Metaspace in tokenizer.json)
  kFirst,        // likewise, but only before text that begins the prompt
};

// What an added token is beside its type, as bits: specdec.tokenizer.added_token_flags.
enum AddedTokenFlag : std::uint8_t {
  kInPreparedText = 1,  // "normalized": found after the others, in the prepared text, and prepared
  kTakesLeftSpaces = 2,
  kTakesRightSpaces = 4,
  kSingleWord = 8,
  kAsSpelt = 16,      // a symbol of the SentencePiece model: in the prepared text, as it is spelt
  kNeverMerged = 32,  // no merges make it: it is not in the model's own vocabulary
  kAllAddedFlags = 63,
};

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

  std::vector<std::int32_t> suppressed;  // tokens that are never to be generated

  std::optional<bool> add_bos;
  std::optional<bool> add_eos;
  std::optional<bool> add_space_prefix;
  // llama only
  SpacePrefix space_prefix = SpacePrefix::kSegments;
  bool remove_extra_whitespaces = false;
  bool escape_whitespaces = true;
  bool fuse_unknown = true;  // a run of characters without token is one unknown token

  struct AddedToken {
    std::uint64_t id;
    std::uint8_t flags;  // AddedTokenFlag
  };
  std::vector<AddedToken> added_tokens;  // those whose flags are not 0
  std::string chat_template;
  std::vector<std::string> notes;  // what reading the file found odd; they become warnings
};

inline constexpr std::string_view kSpecialIdNames[] = {
    "bos",  "eos",     "eot",     "eom",     "unknown", "seperator", "padding",
    "mask", "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep",   "fim_sep",
};

}  // namespace specdec
