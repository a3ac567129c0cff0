// Tokens of a file that its embedding has no row for.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "gguf/reader.h"

namespace specdec {

// Rows of the embedding, token_embd.weight; nothing when the file has none, as a bare vocabulary.
[[nodiscard]] std::optional<std::uint64_t> embedding_rows(const GgufFile& file);

// The first token from `n_rows` on that a text may become: one that is not marked as unused, not
// the padding token and not named like padding ("[PAD]", "<pad3>", "<|unused_7|>", "<dummy00001>").
// Nothing when all of them are padding, which a model can do without.
[[nodiscard]] std::optional<std::uint64_t> first_token_beyond(const GgufFile& file,
                                                              std::uint64_t n_rows);

[[nodiscard]] bool is_padding_name(std::string_view text);

}  // namespace specdec
