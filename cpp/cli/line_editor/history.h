// Messages of earlier prompts and sessions.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace specdec::cli {

// Kept in a file that only its owner can read, one message a line; other sessions may append to it
// at the same time. A file that cannot be used is no error: nothing is kept then.
class History {
 public:
  static constexpr std::size_t kMaxEntries = 1000;

  // "": nothing is kept on disk.
  explicit History(std::string path);

  // Ignores what is empty, as the entry before, or begins with a space.
  void add(const std::string& entry);
  [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }
  [[nodiscard]] const std::string& operator[](std::size_t i) const { return entries_[i]; }
  // Why the file is not used, "" when it is.
  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }

  // $XDG_STATE_HOME/specdec/chat_history, or below ~/.local/state; "" without a home.
  [[nodiscard]] static std::string default_path();

 private:
  void load();
  void append(const std::string& entry);
  void rewrite();

  std::string path_, problem_;
  std::vector<std::string> entries_;
};

// One line of the file: \n and \\ as escapes.
[[nodiscard]] std::string escape_entry(std::string_view entry);
[[nodiscard]] std::string unescape_entry(std::string_view line);

}  // namespace specdec::cli
