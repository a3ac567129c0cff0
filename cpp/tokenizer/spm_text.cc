#include "tokenizer/spm_text.h"

#include <algorithm>

#include "tokenizer/vocabulary.h"

namespace specdec {

std::string_view SpmText::mark() const noexcept { return escape_ ? kSpaceMark : " "; }

bool SpmText::wants_prefix(std::string_view text, bool first) const {
  if (!prefix_) return false;
  if (scheme_ == SpacePrefix::kSegments) return true;
  if (scheme_ == SpacePrefix::kFirst && !first) return false;
  return !text.starts_with(' ') && !text.starts_with(mark());
}

std::string SpmText::prepare(std::string_view text, bool first,
                             std::vector<std::uint32_t>* origins) const {
  std::size_t at = 0;
  if (remove_extra_) at = std::min(text.find_first_not_of(' '), text.size());
  std::string out;
  if (at == text.size()) return out;
  out.reserve(text.size() + mark().size());
  const auto append = [&](std::string_view bytes, std::size_t origin) {
    out += bytes;
    if (origins != nullptr)
      origins->insert(origins->end(), bytes.size(), static_cast<std::uint32_t>(origin));
  };
  if (wants_prefix(text.substr(at), first)) append(mark(), at);
  for (; at < text.size(); ++at) {
    if (text[at] != ' ') {
      append(text.substr(at, 1), at);
    } else if (!remove_extra_ || text[at - 1] != ' ') {
      append(mark(), at);
    }
  }
  if (remove_extra_) {
    while (out.ends_with(mark())) out.resize(out.size() - mark().size());
    if (origins != nullptr) origins->resize(out.size());
  }
  return out;
}

std::string SpmText::prepare_token(std::string_view text) const {
  std::string out(prefix_ ? mark() : std::string_view());
  for (const char c : text) out += c == ' ' ? mark() : std::string_view(&c, 1);
  return out;
}

}  // namespace specdec
