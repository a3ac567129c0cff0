#include "cli/line_editor/edit_buffer.h"

#include <algorithm>
#include <utility>

#include "cli/line_editor/char_width.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace specdec::cli {
namespace {

// Old states beyond this are forgotten, the oldest first.
constexpr std::size_t kMaxUndoBytes = std::size_t{4} << 20;

bool in_word(std::string_view text, std::size_t position) noexcept {
  const std::uint32_t code_point = decode_utf8(text, position).code_point;
  return code_point == '_' ||
         (code_point != kInvalidByte && (char_class(code_point) & (kLetter | kNumber)) != 0);
}

}  // namespace

void EditBuffer::remember(Change change) {
  // A run of typed characters is undone at once.
  const bool goes_on = change == Change::kTyping && last_change_ == Change::kTyping;
  last_change_ = change;
  if (goes_on) return;
  undo_.push_back({text_, cursor_});
  undo_bytes_ += text_.size();
  while (undo_bytes_ > kMaxUndoBytes && undo_.size() > 1) {
    undo_bytes_ -= undo_.front().text.size();
    undo_.erase(undo_.begin());
  }
}

void EditBuffer::undo() {
  if (undo_.empty()) return;
  undo_bytes_ -= undo_.back().text.size();
  text_ = std::move(undo_.back().text);
  cursor_ = undo_.back().cursor;
  undo_.pop_back();
  last_change_ = Change::kOther;
}

void EditBuffer::assign(std::string text) {
  remember(Change::kOther);
  text_ = std::move(text);
  cursor_ = text_.size();
}

void EditBuffer::insert(std::string_view text) {
  if (text.empty()) return;
  remember(text.size() <= 8 ? Change::kTyping : Change::kOther);
  text_.insert(cursor_, text);
  cursor_ += text.size();
  // A mark typed or pasted before others joins them.
  while (cursor_ < text_.size() &&
         cluster_before(text_, cursor_) +
                 cluster_at(text_, cluster_before(text_, cursor_)).n_bytes >
             cursor_) {
    cursor_ += decode_utf8(text_, cursor_).n_bytes;
  }
}

void EditBuffer::remove(std::size_t begin, std::size_t end) {
  if (begin == end) return;
  remember(Change::kOther);
  text_.erase(begin, end - begin);
  cursor_ = begin;
}

void EditBuffer::kill(std::size_t begin, std::size_t end) {
  if (begin == end) return;
  killed_ = text_.substr(begin, end - begin);
  remove(begin, end);
}

void EditBuffer::backspace() {
  if (cursor_ > 0) remove(cluster_before(text_, cursor_), cursor_);
}

void EditBuffer::erase() {
  if (cursor_ < text_.size()) remove(cursor_, cursor_ + cluster_at(text_, cursor_).n_bytes);
}

void EditBuffer::delete_word_back() { kill(word_start(), cursor_); }

void EditBuffer::delete_word_forward() { kill(cursor_, word_end()); }

void EditBuffer::kill_to_line_end() {
  const std::size_t end = line_end_of(cursor_);
  // At the end of a line its break goes, as in other editors.
  kill(cursor_, end == cursor_ && end < text_.size() ? end + 1 : end);
}

void EditBuffer::kill_to_line_start() { kill(line_begin(cursor_), cursor_); }

void EditBuffer::yank() {
  last_change_ = Change::kOther;
  insert(killed_);
  last_change_ = Change::kOther;
}

void EditBuffer::transpose() {
  const std::size_t line = line_begin(cursor_);
  std::size_t middle = cursor_;
  // At the end of a line the last two change places.
  if (middle == line_end_of(cursor_) && middle > line) middle = cluster_before(text_, middle);
  if (middle == line || middle == text_.size()) return;
  const std::size_t first = cluster_before(text_, middle);
  const std::size_t end = middle + cluster_at(text_, middle).n_bytes;
  remember(Change::kOther);
  std::rotate(text_.begin() + static_cast<std::ptrdiff_t>(first),
              text_.begin() + static_cast<std::ptrdiff_t>(middle),
              text_.begin() + static_cast<std::ptrdiff_t>(end));
  cursor_ = end;
}

void EditBuffer::left() {
  last_change_ = Change::kOther;
  if (cursor_ > 0) cursor_ = cluster_before(text_, cursor_);
}

void EditBuffer::right() {
  last_change_ = Change::kOther;
  if (cursor_ < text_.size()) cursor_ += cluster_at(text_, cursor_).n_bytes;
}

std::size_t EditBuffer::word_start() const noexcept {
  std::size_t position = cursor_;
  const auto before = [&] { return cluster_before(text_, position); };
  while (position > 0 && !in_word(text_, before())) position = before();
  while (position > 0 && in_word(text_, before())) position = before();
  return position;
}

std::size_t EditBuffer::word_end() const noexcept {
  std::size_t position = cursor_;
  const auto step = [&] { position += cluster_at(text_, position).n_bytes; };
  while (position < text_.size() && !in_word(text_, position)) step();
  while (position < text_.size() && in_word(text_, position)) step();
  return position;
}

void EditBuffer::word_left() {
  last_change_ = Change::kOther;
  cursor_ = word_start();
}

void EditBuffer::word_right() {
  last_change_ = Change::kOther;
  cursor_ = word_end();
}

std::size_t EditBuffer::line_begin(std::size_t position) const noexcept {
  if (position == 0) return 0;
  const std::size_t found = text_.rfind('\n', position - 1);
  return found == std::string::npos ? 0 : found + 1;
}

std::size_t EditBuffer::line_end_of(std::size_t position) const noexcept {
  return std::min(text_.find('\n', position), text_.size());
}

void EditBuffer::line_start() {
  last_change_ = Change::kOther;
  cursor_ = line_begin(cursor_);
}

void EditBuffer::line_end() {
  last_change_ = Change::kOther;
  cursor_ = line_end_of(cursor_);
}

void EditBuffer::to_column(std::size_t line, int column) {
  last_change_ = Change::kOther;
  const std::size_t end = line_end_of(line);
  cursor_ = line;
  int at = 0;
  while (cursor_ < end) {
    const Cluster cluster = cluster_at(text_, cursor_);
    if (at + cluster.width > column) break;
    at += cluster.width;
    cursor_ += cluster.n_bytes;
  }
}

bool EditBuffer::up() {
  const std::size_t line = line_begin(cursor_);
  if (line == 0) return false;
  const int column = text_width(std::string_view(text_).substr(line, cursor_ - line));
  to_column(line_begin(line - 1), column);
  return true;
}

bool EditBuffer::down() {
  const std::size_t end = line_end_of(cursor_);
  if (end == text_.size()) return false;
  const std::size_t line = line_begin(cursor_);
  const int column = text_width(std::string_view(text_).substr(line, cursor_ - line));
  to_column(end + 1, column);
  return true;
}

}  // namespace specdec::cli
