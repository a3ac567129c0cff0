// Any bytes as a text and as token ids, with small vocabularies of each kind.
#include <array>
#include <memory>
#include <vector>

#include "fuzz.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocab_data.h"

using namespace specdec;

namespace {

// The printable characters that stand for bytes in byte-level vocabularies.
std::vector<std::string> byte_texts() {
  std::vector<std::string> texts(256);
  unsigned next = 256;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool shown = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const unsigned code = shown ? byte : next++;
    if (code < 0x80) {
      texts[byte] = std::string(1, static_cast<char>(code));
    } else {
      texts[byte] = {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 63))};
    }
  }
  return texts;
}

struct Vocab {
  std::vector<std::string> tokens, merges;
  std::vector<float> scores;
  std::vector<std::int32_t> types;

  void add(std::string text, std::int32_t type, float score = 0.0F) {
    tokens.push_back(std::move(text));
    types.push_back(type);
    scores.push_back(score);
  }

  [[nodiscard]] VocabData data(const char* model, const char* pre) const {
    VocabData made;
    made.path = "fuzz";
    made.model = model;
    if (*pre != '\0') made.pre = pre;
    made.tokens.assign(tokens.begin(), tokens.end());
    made.token_types = types;
    if (merges.empty()) {
      made.scores = scores;
    } else {
      made.merges = std::vector<std::string_view>(merges.begin(), merges.end());
    }
    return made;
  }
};

const Vocab& byte_level() {
  static const Vocab vocab = [] {
    Vocab made;
    for (std::string& text : byte_texts()) made.add(std::move(text), 1);
    for (const auto& [left, right] : {std::pair<const char*, const char*>{"t", "h"},
                                      {"th", "e"},
                                      {"\u0120", "the"},
                                      {"a", "a"},
                                      {"aa", "aa"},
                                      {"\u00c3", "\u00a9"},
                                      {"1", "2"},
                                      {"\u010a", "\u010a"}}) {
      made.merges.push_back(std::string(left) + " " + right);
      made.add(std::string(left) + right, 1);
    }
    made.add("<|im_end|>", 3);
    made.add("<tool>", 4);
    return made;
  }();
  return vocab;
}

const Vocab& pieces() {
  static const Vocab vocab = [] {
    Vocab made;
    made.add("<unk>", 2);
    made.add("<s>", 3);
    made.add("</s>", 3);
    for (unsigned byte = 0; byte < 256; ++byte) {
      char text[8];
      std::snprintf(text, sizeof text, "<0x%02X>", byte);
      made.add(text, 6);
    }
    float score = -1.0F;
    for (const char* text : {"\u2581", "t", "h", "e", "th", "the", "\u2581the", "a", "aa", "aaaa",
                             "\u2581\u2581", "\u00e9", "1"}) {
      made.add(text, 1, score -= 1.0F);
    }
    made.add("<tool>", 4);
    return made;
  }();
  return vocab;
}

constexpr std::array kPre = {
    "gpt-2", "llama-bpe", "qwen2",     "qwen35",  "smollm",      "deepseek-llm", "tekken", "gpt-4o",
    "olmo",  "falcon",    "starcoder", "default", "deepseek-v3", "command-r",    "refact", "bloom"};

// The tokenizers that this version knows of these; null for the others.
const Tokenizer* tokenizer(std::uint8_t number) {
  static const std::vector<std::shared_ptr<const Tokenizer>> all = [] {
    std::vector<std::shared_ptr<const Tokenizer>> made;
    for (const char* pre : kPre) {
      fuzz::runs(
          [&] { made.push_back(std::make_shared<Tokenizer>(byte_level().data("gpt2", pre))); });
    }
    for (const auto prefix :
         {SpacePrefix::kSegments, SpacePrefix::kUnlessSpace, SpacePrefix::kFirst}) {
      for (const bool removes : {false, true}) {
        VocabData data = pieces().data("llama", "");
        data.space_prefix = prefix;
        data.remove_extra_whitespaces = removes;
        data.add_space_prefix = true;
        made.push_back(std::make_shared<Tokenizer>(data));
      }
    }
    if (made.size() < 8) fuzz::found("hardly any tokenizer could be made");
    return made;
  }();
  return all[number % all.size()].get();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const Tokenizer& made = *tokenizer(input.byte());
  const std::uint8_t flags = input.byte();
  EncodeOptions options;
  options.parse_special = (flags & 1) != 0;
  options.add_bos = (flags & 2) != 0;
  options.add_eos = (flags & 4) != 0;
  const std::string_view text = input.rest();
  fuzz::runs([&] {
    const std::vector<TokenId> ids = made.encode(text, options);
    const std::string back = made.decode_bytes(ids);
    if (made.model() == "gpt2" && !options.parse_special && back != text)
      fuzz::found("a text does not come back");
    (void)made.decode(ids, {.render_special = true, .strip_space_prefix = true});
    const std::size_t half = text.size() / 2;
    const ChatPiece parts[] = {{std::string(text.substr(0, half)), true},
                               {std::string(text.substr(half)), false}};
    (void)made.encode_chat(parts, options);
  });
  fuzz::runs([&] {  // any numbers as tokens
    std::vector<TokenId> ids;
    for (std::size_t i = 0; i + 2 <= text.size(); i += 2) {
      std::int16_t id = 0;
      std::memcpy(&id, text.data() + i, 2);
      ids.push_back(flags & 8 ? id : id % 300);
    }
    (void)made.decode(ids, {.render_special = (flags & 1) != 0});
  });
  return 0;
}
