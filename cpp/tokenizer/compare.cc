#include "tokenizer/compare.h"

#include <algorithm>

#include "base/error.h"

namespace specdec {
namespace {

std::string describe(const Tokenizer& tokenizer, const std::optional<TokenId>& id) {
  if (!id) return "none";
  return std::to_string(*id) + " '" + printable(tokenizer.token_text(*id)) + "'";
}

}  // namespace

VocabDifference compare_vocabularies(const Tokenizer& target, const Tokenizer& draft) {
  VocabDifference out;
  out.target_size = target.n_tokens();
  out.draft_size = draft.n_tokens();
  out.n_shared = std::min(out.target_size, out.draft_size);
  TokenId n_special = 0;
  TokenId first_special = -1;
  for (TokenId id = 0; id < out.n_shared; ++id) {
    if (target.token_text(id) == draft.token_text(id)) continue;
    // Renamed reserved tokens: text never becomes them, so drafting goes on as well as before.
    if (target.is_hidden(id) && draft.is_hidden(id)) {
      if (n_special++ == 0) first_special = id;
      continue;
    }
    if (out.n_differences++ > 0) continue;
    out.first_difference = id;
    out.target_text = target.token_text(id);
    out.draft_text = draft.token_text(id);
  }
  if (out.target_size != out.draft_size) {
    out.notes.push_back("sizes: target " + std::to_string(out.target_size) + ", draft " +
                        std::to_string(out.draft_size) + "; the draft proposes ids below " +
                        std::to_string(out.n_shared));
  }
  if (n_special > 0) {
    out.notes.push_back("special tokens: " + std::to_string(n_special) +
                        " have other texts, the first: target " + describe(target, first_special) +
                        ", draft " + describe(draft, first_special));
  }
  if (target.bos_id() != draft.bos_id()) {
    out.notes.push_back("BOS: target " + describe(target, target.bos_id()) + ", draft " +
                        describe(draft, draft.bos_id()));
  }
  if (target.eos_id() != draft.eos_id()) {
    out.notes.push_back("EOS: target " + describe(target, target.eos_id()) + ", draft " +
                        describe(draft, draft.eos_id()));
  }
  if (target.add_bos() != draft.add_bos()) {
    const auto verb = [](const Tokenizer& t) { return t.add_bos() ? "adds" : "does not add"; };
    out.notes.push_back(std::string("target ") + verb(target) + " BOS to a prompt, draft " +
                        verb(draft) + " it; prompts are tokenized as the target does");
  }
  out.compatible = out.n_differences == 0;
  return out;
}

std::string VocabDifference::message() const {
  if (compatible) {
    return "the vocabularies agree in all " + std::to_string(n_shared) + " shared tokens";
  }
  return "the vocabularies differ in " + std::to_string(n_differences) + " of " +
         std::to_string(n_shared) + " shared tokens, first in token " +
         std::to_string(first_difference) + ": target '" + printable(target_text) + "', draft '" +
         printable(draft_text) + "'";
}

}  // namespace specdec
