// Text <-> tokens, natively from the metadata of a GGUF file.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/token.h"
#include "tokenizer/special_matcher.h"
#include "tokenizer/vocab_data.h"

namespace specdec {

class GgufFile;
class TextEncoder;
class Vocabulary;

struct EncodeOptions {
  std::optional<bool> add_bos;  // default: as the file says
  bool add_eos = false;         // never by itself: a prompt is there to be continued
  // Turn the texts of control tokens ("<|im_end|>") into those tokens. Leave off for text that a
  // user typed. User-defined tokens are recognised always.
  bool parse_special = false;
};

// A part of a prompt, and whether control tokens may be recognised in it.
struct ChatPiece {
  std::string text;
  bool parse_special = false;
};

struct DecodeOptions {
  // Also the texts of control, unknown and unused tokens, which are left out otherwise.
  bool render_special = false;
  // Drop the space that a SentencePiece vocabulary puts in front of a prompt: for tokens that stand
  // at the beginning, not for a continuation.
  bool strip_space_prefix = false;
};

// The tokenizer of one model, immutable: share it between threads.
//
// Text is bytes. What is not UTF-8 is encoded byte by byte (each such byte is a symbol of its own
// for the word splitter) and never an error. There is no Unicode normalisation. decode() gives
// valid UTF-8 with U+FFFD for what is not (utf8.h); token_bytes() gives the bytes themselves.
class Tokenizer {
 public:
  // Throws Error: kModelFormat (missing_key wrong_type bad_vocab bad_special_id bad_merge limit) or
  // kUnsupported (tokenizer_model tokenizer_pre).
  static std::shared_ptr<const Tokenizer> from_gguf(const GgufFile& file);
  explicit Tokenizer(const VocabData& data);
  ~Tokenizer();

  // Throws Error(kResource) for a text of 128 MiB or more.
  [[nodiscard]] std::vector<TokenId> encode(std::string_view text,
                                            const EncodeOptions& options = {}) const;
  // As encode() of the joined text, but control tokens are recognised only inside pieces that allow
  // it. options.parse_special is not used.
  [[nodiscard]] std::vector<TokenId> encode_chat(std::span<const ChatPiece> pieces,
                                                 const EncodeOptions& options = {}) const;

  // Throws Error(kInvalidArgument) naming the position of a token that does not exist.
  [[nodiscard]] std::string decode(std::span<const TokenId> tokens,
                                   const DecodeOptions& options = {}) const;
  // The bytes before replacement of what is not UTF-8.
  [[nodiscard]] std::string decode_bytes(std::span<const TokenId> tokens,
                                         const DecodeOptions& options = {}) const;

  // These throw Error(kInvalidArgument) for a token that does not exist. The views live as long as
  // this.
  [[nodiscard]] std::string_view token_bytes(TokenId token) const;  // what it stands for in a text
  [[nodiscard]] std::string_view token_text(TokenId token) const;   // as spelt in the vocabulary
  // Left out of decoded text by default: control, unknown and unused tokens.
  [[nodiscard]] bool is_hidden(TokenId token) const;
  [[nodiscard]] bool is_control(TokenId token) const;
  // Ends a generation. False for a token that does not exist.
  [[nodiscard]] bool is_eog(TokenId token) const noexcept;

  [[nodiscard]] TokenId n_tokens() const noexcept;
  // The first token of that text.
  [[nodiscard]] std::optional<TokenId> find_token(std::string_view text) const;
  [[nodiscard]] std::optional<TokenId> bos_id() const noexcept { return bos_; }
  [[nodiscard]] std::optional<TokenId> eos_id() const noexcept { return eos_; }
  [[nodiscard]] std::optional<TokenId> eot_id() const noexcept { return eot_; }
  [[nodiscard]] std::optional<TokenId> unknown_id() const noexcept { return unknown_; }
  [[nodiscard]] std::optional<TokenId> padding_id() const noexcept { return padding_; }
  [[nodiscard]] const std::vector<TokenId>& eog_ids() const noexcept;  // sorted
  // Never to be generated, whatever their logits (tokenizer.ggml.suppress_tokens).
  [[nodiscard]] const std::vector<TokenId>& suppressed_ids() const noexcept { return suppressed_; }
  [[nodiscard]] bool add_bos() const noexcept { return add_bos_; }
  [[nodiscard]] bool adds_space_prefix() const noexcept;

  [[nodiscard]] const std::string& model() const noexcept { return model_; }  // "gpt2" or "llama"
  [[nodiscard]] const std::string& pre() const noexcept { return pre_; }      // "" for llama
  [[nodiscard]] const std::string& chat_template() const noexcept { return chat_template_; }
  // What was odd about the file but harmless: "duplicate_tokens: ..." and so on.
  [[nodiscard]] const std::vector<std::string>& warnings() const noexcept;

 private:
  void load_special(const VocabData& data);
  void check(TokenId token, std::size_t position) const;
  [[nodiscard]] std::vector<TokenId> encode_ranges(std::string_view text,
                                                   std::span<const ByteRange> control_ranges,
                                                   const EncodeOptions& options) const;
  void encode_between(std::string_view prompt, const PromptPart& part,
                      std::span<const ByteRange> control_ranges,
                      std::vector<TokenId>& tokens) const;

  std::string model_;
  std::string pre_;
  std::string chat_template_;
  std::vector<TokenId> suppressed_;
  std::unique_ptr<Vocabulary> vocabulary_;
  std::unique_ptr<const TextEncoder> encoder_;
  SpecialMatcher special_;  // in the prompt as it is
  SpecialMatcher later_;    // in what it leaves, prepared for the encoder
  std::optional<TokenId> bos_;
  std::optional<TokenId> eos_;
  std::optional<TokenId> eot_;
  std::optional<TokenId> unknown_;
  std::optional<TokenId> padding_;
  bool add_bos_ = false;
};

}  // namespace specdec
