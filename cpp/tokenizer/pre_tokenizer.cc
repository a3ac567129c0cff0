#include "tokenizer/pre_tokenizer.h"

#include <iterator>

#include "tokenizer/split_rules.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace specdec {
namespace {

using enum SplitRule;

constexpr PreTokenizer kPreTokenizers[] = {
    {"default", kDefault, false, false},
    {"gpt-2", kGpt2, false, false},
    {"phi-2", kGpt2, false, false},
    {"olmo", kGpt2, false, false},
    {"mpt", kGpt2, false, false},
    {"jais", kGpt2, false, false},
    {"trillion", kGpt2, false, false},
    {"granite-docling", kGpt2, false, false},
    {"exaone4", kGpt2, false, false},
    {"gigachat", kGpt2, false, false},
    {"mellum", kGpt2, false, false},
    {"a.x-4.0", kGpt2, false, false},
    {"llama-bpe", kLlama3, true, true},
    {"llama3", kLlama3, true, true},
    {"llama-v3", kLlama3, true, true},
    {"falcon3", kLlama3, true, true},
    {"falcon-h1", kLlama3, true, true},
    {"pixtral", kLlama3, true, true},
    {"midm-2.0", kLlama3, true, true},
    {"lfm2", kLlama3, true, true},
    {"dbrx", kLlama3, false, false},
    {"smaug-bpe", kLlama3, false, false},
    {"glm4", kLlama3, false, false},
    {"chatglm-bpe", kLlama3, false, false},
    {"qwen2", kQwen2, false, false},
    {"deepseek-r1-qwen", kQwen2, false, false},
    {"kormo", kQwen2, false, false},
    {"megrez", kQwen2, false, false},
    {"stablelm2", kQwen2, false, false},
    {"hunyuan", kQwen2, false, false},
    {"solar-open", kQwen2, false, false},
    {"grok-2", kQwen2, false, false},
    {"qwen35", kQwen35, false, false},
    {"smollm", kSmolLm, false, false},
    {"starcoder", kSmolLm, false, false},
    {"refact", kSmolLm, false, false},
    {"command-r", kSmolLm, false, false},
    {"codeshell", kSmolLm, false, false},
    {"exaone", kSmolLm, false, false},
    {"minerva-7b", kSmolLm, false, false},
    {"mellum2", kSmolLm, false, false},
    {"falcon", kFalcon, false, false},
    {"deepseek-llm", kDeepSeekLlm, false, false},
    {"deepseek-coder", kDeepSeekCoder, false, false},
    {"deepseek-v3", kDeepSeek3, false, false},
    {"hunyuan-dense", kDeepSeek3, false, false},
    {"joyai-llm", kDeepSeek3, false, false},
    {"gpt-4o", kGpt4o, false, false},
    {"llama4", kGpt4o, false, false},
    {"kanana2", kGpt4o, false, false},
    {"minimax-m2", kGpt4o, false, false},
    {"tekken", kTekken, true, true},
    {"bloom", kBloom, false, false},
    {"poro-chat", kBloom, false, false},
    {"gpt3-finnish", kBloom, false, false},
    {"viking", kViking, false, false},
};

}  // namespace

const PreTokenizer* find_pre_tokenizer(std::string_view name) {
  for (const PreTokenizer& entry : kPreTokenizers) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

std::string known_pre_tokenizers() {
  std::string names;
  for (const PreTokenizer& entry : kPreTokenizers) {
    if (!names.empty()) names += ", ";
    names += entry.name;
  }
  return names;
}

void CharText::assign(std::string_view text) {
  code_points.clear();
  classes.clear();
  offsets.clear();
  for (std::size_t i = 0; i < text.size();) {
    const auto [code_point, n_bytes] = decode_utf8(text, i);
    code_points.push_back(code_point);
    classes.push_back(char_class(code_point));
    offsets.push_back(static_cast<std::uint32_t>(i));
    i += n_bytes;
  }
  offsets.push_back(static_cast<std::uint32_t>(text.size()));
}

void split_words(SplitRule rule, std::string_view text, SplitScratch& scratch,
                 std::vector<std::uint32_t>& word_ends) {
  scratch.chars.assign(text);
  split_chars(rule, scratch.chars, scratch.cuts);
  for (const std::uint32_t cut : scratch.cuts) word_ends.push_back(scratch.chars.offsets[cut]);
}

}  // namespace specdec
