#include "engine/output_text.h"

#include <algorithm>

namespace specdec {

std::string OutputPieces::piece(TokenId token) const {
  if (!tokenizer_.is_hidden(token)) return std::string(tokenizer_.token_bytes(token));
  return render_special_ ? std::string(tokenizer_.token_text(token)) : std::string();
}

OutputChunk OutputText::push(const Chunk& chunk) {
  OutputChunk out;
  out.token_ids.assign(chunk.token_ids.begin(), chunk.token_ids.end());
  out.from_draft.assign(chunk.from_draft.begin(), chunk.from_draft.end());
  out.logprobs.assign(chunk.logprobs.begin(), chunk.logprobs.end());
  std::string_view bytes = chunk.text;
  for (std::size_t i = 0; i < chunk.token_ids.size(); ++i) {
    // A stop string may have cut the text of the last token.
    const bool last = i + 1 == chunk.token_ids.size();
    const std::size_t n =
        last ? bytes.size() : std::min(pieces_.piece(chunk.token_ids[i]).size(), bytes.size());
    assembler_.push(bytes.substr(0, n), out.text);
    bytes.remove_prefix(n);
    out.text_ends.push_back(out.text.size());
  }
  return out;
}

OutputChunk OutputText::flush() {
  OutputChunk out;
  assembler_.flush(out.text);
  return out;
}

}  // namespace specdec
