// Chat formats that are known by name, as templates.
#pragma once

#include <span>
#include <string_view>

namespace specdec::chat {

struct NamedFormat {
  std::string_view name;  // "chatml", "llama2", "llama3", "zephyr", "gemma", "phi3", "phi4", "raw"
  std::string_view source;  // of the template
};

[[nodiscard]] std::span<const NamedFormat> named_formats() noexcept;
// "" when there is none of that name.
[[nodiscard]] std::string_view find_named_format(std::string_view name) noexcept;
// The name of the format that a template seems to write, recognised by its marks: for reports, not
// for rendering. "" when it is none of the above.
[[nodiscard]] std::string_view recognise_format(std::string_view source) noexcept;

}  // namespace specdec::chat
