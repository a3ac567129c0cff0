// Where in a grammar a text stands, found byte by byte.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "grammar/automaton.h"

namespace specdec::grammar {

// All the ways in which a text can be read so far are one place. Places and the steps between them
// are kept, so that a step that was taken before is one look into a table. Not thread-safe.
class Walker {
 public:
  using Place = std::uint32_t;
  static constexpr Place kNowhere = 0;  // no text of the grammar begins like that

  explicit Walker(std::shared_ptr<const Automaton> automaton);

  [[nodiscard]] Place start() const noexcept { return kStart; }
  [[nodiscard]] Place step(Place from, unsigned char byte) {
    const std::uint32_t known = next_[from][byte];
    return known != kUnknown ? known : find(from, byte);
  }
  [[nodiscard]] bool may_end(Place place) const { return places_[place].may_end; }
  // Bytes that may follow.
  [[nodiscard]] ByteSet following(Place place) const;

  // Whether it is time to forget all places; not done while one is in use.
  [[nodiscard]] bool is_large() const noexcept { return places_.size() > kLarge; }
  void forget();

 private:
  static constexpr Place kStart = 1;
  static constexpr std::uint32_t kUnknown = 0xFFFFFFFF;
  static constexpr std::size_t kLarge = 1U << 14;

  // A state that reads a byte, and what is to be read behind its rule: an index of `stack_`.
  using Way = std::uint64_t;
  struct Waiting {
    std::uint32_t state, below;
  };
  struct PlaceData {
    std::vector<Way> ways;  // sorted
    bool may_end = false;
  };
  struct WaysHash {
    std::size_t operator()(const std::vector<Way>& ways) const noexcept;
  };

  Place find(Place from, unsigned char byte);
  Place keep(std::vector<Way> ways, bool may_end);
  // Adds the ways that begin with a state, calls and returns followed.
  void add_ways(std::uint32_t state, std::uint32_t stack, std::vector<Way>& ways, bool& may_end);
  std::uint32_t push(std::uint32_t state, std::uint32_t below);

  std::shared_ptr<const Automaton> automaton_;
  std::vector<PlaceData> places_;
  std::vector<std::array<std::uint32_t, 256>> next_;  // [places][byte]
  // Those that may end have their own.
  std::unordered_map<std::vector<Way>, Place, WaysHash> known_[2];
  std::vector<Waiting> stack_;  // [0]: nothing waits
  std::unordered_map<std::uint64_t, std::uint32_t> stacks_;
  std::vector<Way> open_;  // of add_ways
};

}  // namespace specdec::grammar
