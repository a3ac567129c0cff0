#include "tokenizer/stream_decoder.h"

namespace specdec {

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, DecodeOptions options)
    : tokenizer_(std::move(tokenizer)), options_(options) {}

std::string StreamDecoder::push(TokenId token) {
  std::string_view bytes = tokenizer_->token_bytes(token);
  if (bytes.empty() || (!options_.render_special && tokenizer_->is_hidden(token))) return {};
  if (at_start_ && options_.strip_space_prefix && tokenizer_->adds_space_prefix() &&
      bytes.front() == ' ') {
    bytes.remove_prefix(1);
  }
  at_start_ = false;
  std::string out;
  assembler_.push(bytes, out);
  return out;
}

std::string StreamDecoder::flush() {
  std::string out;
  assembler_.flush(out);
  at_start_ = true;
  return out;
}

}  // namespace specdec
