#include "engine/memory_body.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/hash.h"

namespace specdec {
namespace {

struct Text {
  std::uint64_t key = 0;
  std::vector<TokenId> tokens;
};

struct Row {
  std::uint64_t key = 0;
  DraftMemory::Successors successors;
};

// In the order in which they are written: what was used least recently first.
struct Body {
  std::vector<Text> texts;
  std::vector<Row> rows;
};

std::uint64_t hash_of(std::uint64_t key, std::span<const TokenId> tokens) {
  Hash64 hash;
  hash.add_number(key);
  hash.add(std::as_bytes(tokens));
  return hash.value();
}

// Of the file's texts what the memory does not hold, as far as the file had room for it.
std::vector<Text> texts_left(const MemoryFile& file, const DraftMemory& memory,
                             std::vector<Text>& held) {
  const auto most = static_cast<std::size_t>(memory.stats().max_tokens);
  std::unordered_map<std::uint64_t, Text*> places;
  for (Text& text : held) places.emplace(hash_of(text.key, text.tokens), &text);
  std::vector<Text> left;
  file.visit(
      [&](std::uint64_t key, std::span<const TokenId> tokens) {
        const auto place = places.find(hash_of(key, tokens.last(std::min(tokens.size(), most))));
        if (place != places.end()) {  // of a long one the memory has only the end
          if (tokens.size() > most) place->second->tokens.assign(tokens.begin(), tokens.end());
          return;
        }
        const std::span<const TokenId> missing = memory.missing(key, tokens);
        if (!missing.empty())
          left.push_back({.key = key, .tokens = {missing.begin(), missing.end()}});
      },
      [](std::uint64_t, const DraftMemory::Successors&) {});
  std::uint64_t n_held = 0;
  for (const Text& text : held) n_held += text.tokens.size();
  std::uint64_t room = file.n_tokens() - std::min(file.n_tokens(), n_held);
  auto first = left.end();
  while (first != left.begin() && room > 0) {
    std::vector<TokenId>& tokens = (--first)->tokens;
    if (tokens.size() > room)  // its end
      tokens.erase(tokens.begin(), tokens.end() - static_cast<std::ptrdiff_t>(room));
    room -= tokens.size();
  }
  left.erase(left.begin(), first);
  return left;
}

std::vector<Row> rows_left(const MemoryFile& file, const std::vector<Row>& held) {
  std::set<std::pair<std::uint64_t, TokenId>> places;
  for (const Row& row : held) places.emplace(row.key, row.successors.after);
  std::vector<Row> left;
  file.visit([](std::uint64_t, std::span<const TokenId>) {},
             [&](std::uint64_t key, const DraftMemory::Successors& row) {
               if (!places.contains({key, row.after}))
                 left.push_back({.key = key, .successors = row});
             });
  const auto room =
      static_cast<std::size_t>(file.n_rows() - std::min<std::uint64_t>(file.n_rows(), held.size()));
  if (left.size() > room) left.erase(left.begin(), left.end() - static_cast<std::ptrdiff_t>(room));
  return left;
}

template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_tokens(std::string& out, std::span<const TokenId> tokens) {
  put(out, static_cast<std::uint32_t>(tokens.size()));
  out.append(reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes());
}

std::string bytes_of(const Body& body) {
  std::string out;
  put(out, std::uint64_t{body.texts.size()});
  for (const Text& text : body.texts) {
    put(out, text.key);
    put_tokens(out, text.tokens);
  }
  put(out, std::uint64_t{body.rows.size()});
  for (const Row& row : body.rows) {
    const auto& best = row.successors.best;
    put(out, row.key);
    put(out, row.successors.after);
    put_tokens(out, std::span(best.begin(), std::find(best.begin(), best.end(), -1)));
  }
  return out;
}

}  // namespace

bool exceeds(const MemoryFile& file, const DraftMemory& memory) {
  const DraftMemory::Stats stats = memory.stats();
  return file.n_tokens() > static_cast<std::uint64_t>(stats.max_tokens) ||
         file.n_rows() > static_cast<std::uint64_t>(stats.max_rows);
}

std::string memory_body(const DraftMemory& memory, const MemoryFile* before) {
  Body body;
  memory.visit(
      [&](std::uint64_t key, std::span<const TokenId> text) {
        body.texts.push_back({.key = key, .tokens = {text.begin(), text.end()}});
      },
      [&](std::uint64_t key, const DraftMemory::Successors& row) {
        body.rows.push_back({.key = key, .successors = row});
      });
  if (before != nullptr && exceeds(*before, memory)) {
    std::vector<Text> texts = texts_left(*before, memory, body.texts);
    texts.insert(texts.end(), std::move_iterator(body.texts.begin()),
                 std::move_iterator(body.texts.end()));
    body.texts = std::move(texts);
    std::vector<Row> rows = rows_left(*before, body.rows);
    rows.insert(rows.end(), body.rows.begin(), body.rows.end());
    body.rows = std::move(rows);
  }
  return bytes_of(body);
}

}  // namespace specdec
