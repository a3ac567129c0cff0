// Bytes from a terminal in raw mode, as keys.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace specdec::cli {

enum class KeyKind {
  kText,   // characters to insert
  kPaste,  // pasted at once, with its line breaks as \n
  kEnter,
  kNewline,  // Alt-Enter: a line break within the message
  kTab,
  kBackspace,
  kDelete,
  kLeft,
  kRight,
  kUp,
  kDown,
  kHome,
  kEnd,
  kWordLeft,
  kWordRight,
  kDeleteWordBack,
  kDeleteWordForward,
  kKillToEnd,
  kKillToStart,
  kYank,
  kTranspose,
  kUndo,
  kClearScreen,
  kSearchBack,
  kCancel,      // Ctrl-G
  kEscape,      // alone
  kInterrupt,   // Ctrl-C
  kEndOfInput,  // Ctrl-D
  kSuspend,     // Ctrl-Z
  kPrevious,    // Ctrl-P
  kNext,        // Ctrl-N
  kUnknown,
};

struct Key {
  KeyKind kind;
  std::string text;  // of kText and kPaste, valid UTF-8
};

// A paste beyond this is cut, so that a mistake cannot take all memory.
inline constexpr std::size_t kMaxPasteBytes = std::size_t{16} << 20;

// Keys arrive in pieces: bytes go in, whole keys come out.
class KeyDecoder {
 public:
  void feed(std::string_view bytes);
  // Nothing when more bytes are needed.
  [[nodiscard]] std::optional<Key> next();
  // Whether what is held may be a key of its own unless more comes soon: Escape.
  [[nodiscard]] bool undecided() const noexcept;
  // No more came: what is held is decided as it stands.
  [[nodiscard]] std::optional<Key> flush();

 private:
  [[nodiscard]] std::string_view rest() const noexcept {
    return std::string_view(bytes_).substr(begin_);
  }
  [[nodiscard]] std::optional<Key> take(std::size_t n, KeyKind kind);
  [[nodiscard]] std::optional<Key> escape_sequence();
  [[nodiscard]] std::optional<Key> paste();
  [[nodiscard]] std::optional<Key> text();

  std::string bytes_;
  std::size_t begin_ = 0;  // of what was not taken yet
  bool in_paste_ = false;
  std::size_t searched_ = 0;  // of a paste, so that its end is looked for once
};

}  // namespace specdec::cli
