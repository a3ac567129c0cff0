#include "cli/line_editor/keys.h"

#include <algorithm>
#include <utility>

#include "tokenizer/utf8.h"

namespace specdec::cli {
namespace {

constexpr std::string_view kPasteBegin = "\033[200~";
constexpr std::string_view kPasteEnd = "\033[201~";
// Longer sequences are no keys: they are dropped.
constexpr std::size_t kMaxSequence = 32;

KeyKind control_key(unsigned char byte) {
  switch (byte) {
    case 1:
      return KeyKind::kHome;
    case 2:
      return KeyKind::kLeft;
    case 3:
      return KeyKind::kInterrupt;
    case 4:
      return KeyKind::kEndOfInput;
    case 5:
      return KeyKind::kEnd;
    case 6:
      return KeyKind::kRight;
    case 7:
      return KeyKind::kCancel;
    case 8:
    case 127:
      return KeyKind::kBackspace;
    case 9:
      return KeyKind::kTab;
    case 10:
    case 13:
      return KeyKind::kEnter;
    case 11:
      return KeyKind::kKillToEnd;
    case 12:
      return KeyKind::kClearScreen;
    case 14:
      return KeyKind::kNext;
    case 16:
      return KeyKind::kPrevious;
    case 18:
      return KeyKind::kSearchBack;
    case 20:
      return KeyKind::kTranspose;
    case 21:
      return KeyKind::kKillToStart;
    case 23:
      return KeyKind::kDeleteWordBack;
    case 25:
      return KeyKind::kYank;
    case 26:
      return KeyKind::kSuspend;
    case 31:
      return KeyKind::kUndo;
    default:
      return KeyKind::kUnknown;
  }
}

// ESC [ or ESC O with parameters: "1;5" is Ctrl, "1;3" Alt.
KeyKind function_key(std::string_view parameters, char final) {
  const bool by_word = parameters.ends_with(";5") || parameters.ends_with(";3");
  switch (final) {
    case 'A':
      return KeyKind::kUp;
    case 'B':
      return KeyKind::kDown;
    case 'C':
      return by_word ? KeyKind::kWordRight : KeyKind::kRight;
    case 'D':
      return by_word ? KeyKind::kWordLeft : KeyKind::kLeft;
    case 'H':
      return KeyKind::kHome;
    case 'F':
      return KeyKind::kEnd;
    case '~':
      if (parameters == "1" || parameters == "7") return KeyKind::kHome;
      if (parameters == "4" || parameters == "8") return KeyKind::kEnd;
      if (parameters == "3") return KeyKind::kDelete;
      if (parameters == "3;5" || parameters == "3;3") return KeyKind::kDeleteWordForward;
      // Shift-Enter and Ctrl-Enter of terminals that tell them apart
      if (parameters == "27;2;13" || parameters == "27;5;13") return KeyKind::kNewline;
      return KeyKind::kUnknown;
    case 'u':
      return parameters == "13;2" || parameters == "13;5" ? KeyKind::kNewline : KeyKind::kUnknown;
    default:
      return KeyKind::kUnknown;
  }
}

KeyKind meta_key(char byte) {
  switch (byte) {
    case 'b':
      return KeyKind::kWordLeft;
    case 'f':
      return KeyKind::kWordRight;
    case 'd':
      return KeyKind::kDeleteWordForward;
    case 8:
    case 127:
      return KeyKind::kDeleteWordBack;
    case '\r':
    case '\n':
      return KeyKind::kNewline;
    default:
      return KeyKind::kUnknown;
  }
}

// \r\n and \r become \n; other control characters but tabs are dropped.
std::string clean_paste(std::string_view bytes) {
  std::string out;
  const std::string text = replace_invalid_utf8(bytes);
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\r') {
      if (i + 1 == text.size() || text[i + 1] != '\n') out += '\n';
    } else if (c == '\n' || c == '\t' || (static_cast<unsigned char>(c) >= 32 && c != 127)) {
      out += c;
    }
  }
  return out;
}

}  // namespace

void KeyDecoder::feed(std::string_view bytes) {
  if (begin_ == bytes_.size()) {
    bytes_.clear();
    begin_ = 0;
  }
  bytes_ += bytes;
}

bool KeyDecoder::undecided() const noexcept { return !in_paste_ && !rest().empty(); }

std::optional<Key> KeyDecoder::take(std::size_t n, KeyKind kind) {
  begin_ += n;
  return Key{kind, {}};
}

std::optional<Key> KeyDecoder::next() {
  if (in_paste_) return paste();
  if (rest().empty()) return std::nullopt;
  const auto byte = static_cast<unsigned char>(rest()[0]);
  if (byte == 27) return escape_sequence();
  if (byte < 32 || byte == 127) return take(1, control_key(byte));
  return text();
}

std::optional<Key> KeyDecoder::escape_sequence() {
  const std::string_view held = rest();
  if (held.size() < 2) return std::nullopt;
  if (held[1] != '[' && held[1] != 'O') {
    // Escape, then a control character of its own: two keys.
    if (held[1] == 27) return take(1, KeyKind::kEscape);
    return take(2, meta_key(held[1]));
  }
  if (held.starts_with(kPasteBegin)) {
    begin_ += kPasteBegin.size();
    in_paste_ = true;
    searched_ = 0;
    return paste();
  }
  std::size_t end = 2;
  while (end < held.size() && static_cast<unsigned char>(held[end]) >= 0x20 &&
         static_cast<unsigned char>(held[end]) < 0x40) {
    ++end;
  }
  if (end == held.size()) {
    return end < kMaxSequence ? std::nullopt : take(end, KeyKind::kUnknown);
  }
  const KeyKind kind = function_key(held.substr(2, end - 2), held[end]);
  // A control character ends a broken sequence and keeps its own meaning.
  const bool broken = static_cast<unsigned char>(held[end]) < 0x20;
  return take(broken ? end : end + 1, kind);
}

std::optional<Key> KeyDecoder::paste() {
  const std::string_view held = rest();
  const std::size_t end = held.find(kPasteEnd, searched_);
  if (end == std::string_view::npos) {
    searched_ = held.size() < kPasteEnd.size() ? 0 : held.size() - kPasteEnd.size() + 1;
    // Beyond the bound only the end is waited for.
    if (held.size() > kMaxPasteBytes + kPasteEnd.size()) {
      const std::string tail(held.substr(held.size() - kPasteEnd.size() + 1));
      bytes_.resize(begin_ + kMaxPasteBytes);
      bytes_ += tail;
      searched_ = kMaxPasteBytes;
    }
    return std::nullopt;
  }
  Key key{KeyKind::kPaste, clean_paste(held.substr(0, std::min(end, kMaxPasteBytes)))};
  begin_ += end + kPasteEnd.size();
  in_paste_ = false;
  return key;
}

std::optional<Key> KeyDecoder::text() {
  const std::string_view held = rest();
  Utf8Assembler assembler;
  std::string out;
  std::size_t end = 0;
  // Everything typed so far that is no control character.
  while (end < held.size() && static_cast<unsigned char>(held[end]) >= 32 && held[end] != 127) {
    ++end;
  }
  assembler.push(held.substr(0, end), out);
  std::size_t n_taken = end;
  if (!assembler.empty()) {
    if (end < held.size()) {
      assembler.flush(out);
    } else {
      // The beginning of a character stays for what comes next.
      while (n_taken > 0 && (static_cast<unsigned char>(held[n_taken - 1]) & 0xc0) == 0x80) {
        --n_taken;
      }
      if (n_taken > 0) --n_taken;
    }
  }
  if (out.empty()) return std::nullopt;
  begin_ += n_taken;
  return Key{KeyKind::kText, std::move(out)};
}

std::optional<Key> KeyDecoder::flush() {
  if (!undecided()) return std::nullopt;
  const bool escape = rest()[0] == 27;
  const bool alone = rest().size() == 1;
  bytes_.clear();
  begin_ = 0;
  if (escape) return Key{alone ? KeyKind::kEscape : KeyKind::kUnknown, {}};
  return Key{KeyKind::kText, "\xef\xbf\xbd"};
}

}  // namespace specdec::cli
