// What may be seen of stores, by whom: on a GPU they reach other blocks when a fence and something
// that is published behind it say so, and later kernels at their wait_for_previous().
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace specdec::cuda {

// A thread at some moment: its block, its number, and how often the block has met in sync().
struct Moment {
  int block = 0;
  int thread = 0;
  int epoch = 0;
};

// Of one launch: who has published, and who has seen what others published.
class LaunchOrder {
 public:
  void begin() {
    blocks_.clear();
    now_ = 0;
  }
  // A store at this point of the launch.
  [[nodiscard]] std::uint32_t tick() { return ++now_; }

  void fence(const Moment& at) {
    Block& block = blocks_[at.block];
    block.fences[at.thread] = {at.thread, at.epoch, ++now_};
    if (block.asked.count(at.thread) > 0) block.seen.push_back({at.thread, at.epoch, now_});
  }
  void atomic(const Moment& at) {
    Block& block = blocks_[at.block];
    const auto fence = block.fences.find(at.thread);
    if (fence != block.fences.end()) block.published.push_back(fence->second);
    ++block.asked[at.thread];
  }

  // Whether the store of `writer` at `tick` can be seen by a thread of another block: what is
  // missing, or "". A fence covers the stores of its own thread before it, and those of its block
  // that a sync() was between.
  [[nodiscard]] std::string missing(const Moment& writer, std::uint32_t tick,
                                    const Moment& reader) const {
    const auto covers = [](const Event& event, const Moment& who, std::uint32_t when) {
      return event.epoch > who.epoch || (event.thread == who.thread && event.tick > when);
    };
    const std::string what =
        "a load of what block " + std::to_string(writer.block) + " of the launch stored, ";
    bool published = false;
    if (const auto block = blocks_.find(writer.block); block != blocks_.end()) {
      for (const Event& event : block->second.published)
        published = published || covers(event, writer, tick);
    }
    if (!published) return what + "and no fence() was between that and an atomic_add()";
    if (const auto block = blocks_.find(reader.block); block != blocks_.end()) {
      for (const Event& event : block->second.seen) {
        if (event.epoch < reader.epoch || event.thread == reader.thread) return {};
      }
    }
    return what + "with no fence() behind an atomic_add(), or no sync() behind that";
  }

 private:
  struct Event {
    int thread = 0;
    int epoch = 0;
    std::uint32_t tick = 0;
  };
  struct Block {
    std::unordered_map<int, Event> fences;  // the last of each thread
    std::unordered_map<int, int> asked;     // atomics of each thread
    std::vector<Event> published, seen;
  };
  std::unordered_map<int, Block> blocks_;
  std::uint32_t now_ = 0;
};

// Who stored the words of a piece of device memory last.
class StoredWords {
 public:
  explicit StoredWords(std::size_t n_bytes) : n_words_((n_bytes + 3) / 4) {}

  void store(std::size_t first, std::size_t n, const Moment& by, std::uint32_t tick, int launch) {
    if (words_.empty()) words_.resize(n_words_);
    for (std::size_t i = first / 4; i < (first + n + 3) / 4; ++i) words_[i] = {by, tick, launch};
  }
  // What is wrong with a load by another block than the one that stored, or "".
  [[nodiscard]] std::string load(std::size_t first, std::size_t n, const Moment& by, int launch,
                                 const LaunchOrder& order) const {
    if (words_.empty()) return {};
    for (std::size_t i = first / 4; i < (first + n + 3) / 4; ++i) {
      const Word& word = words_[i];
      if (word.launch != launch || word.by.block == by.block) continue;
      if (std::string error = order.missing(word.by, word.tick, by); !error.empty()) return error;
    }
    return {};
  }

 private:
  struct Word {
    Moment by;
    std::uint32_t tick = 0;
    int launch = -1;
  };
  std::size_t n_words_;
  std::vector<Word> words_;  // when there was a store
};

// Whether kernels have stored to words since the device was last idle or the host wrote them: a
// kernel that starts early may not read them yet.
class PendingWords {
 public:
  explicit PendingWords(std::size_t n_bytes) : n_words_((n_bytes + 3) / 4) {}

  void store(std::size_t first, std::size_t n) { set(first, n, true); }
  void host_write(std::size_t first, std::size_t n) {
    if (!words_.empty()) set(first, n, false);
  }
  void idle() { words_.clear(); }
  [[nodiscard]] bool any(std::size_t first, std::size_t n) const {
    if (words_.empty()) return false;
    for (std::size_t i = first / 4; i < (first + n + 3) / 4; ++i) {
      if (words_[i]) return true;
    }
    return false;
  }

 private:
  void set(std::size_t first, std::size_t n, bool value) {
    if (words_.empty()) words_.resize(n_words_);
    for (std::size_t i = first / 4; i < (first + n + 3) / 4; ++i) words_[i] = value;
  }

  std::size_t n_words_;
  std::vector<bool> words_;  // when there was a store
};

}  // namespace specdec::cuda
