// A cache as a few numbers and blocks of bytes, for files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kv/kv_cache.h"

namespace specdec {

// All of a cache but its elements.
struct KvRecord {
  // Of a recurrent layer, whose inputs of [log_begin, length) are known.
  struct State {
    int tip = -1;  // position of its state; -1: there is none
    int log_begin = 0;
    friend bool operator==(const State&, const State&) = default;
  };
  // Earlier states, of those layers that have one.
  struct Checkpoint {
    int position = 0;
    std::vector<bool> has;  // [n_recurrent_layers]
  };

  KvShape shape;  // without a device
  int length = 0;
  int n_forgotten = 0;  // pages of layers with a window, from the first on
  std::vector<State> states;
  std::vector<Checkpoint> checkpoints;  // by position
};

// What is wrong with a record that nobody vouches for, "" when nothing is: then all sums below are
// safe, and blocks of these sizes make a cache.
[[nodiscard]] std::string kv_record_problem(const KvRecord& record);

// Bytes of each block: pages in their order, of layers that see everything before those with a
// window; then the states of recurrent layers, their inputs, and each checkpoint. Of a record
// without a problem. Empty blocks are left out.
[[nodiscard]] std::vector<std::uint64_t> kv_block_bytes(const KvRecord& record);

class KvStore {
 public:
  // Throws Error(kUnsupported) where layers are on a device.
  [[nodiscard]] static KvRecord record(const KvCache& cache);

  // A block comes in pieces, one after the other.
  using Put = std::function<void(std::span<const std::byte> piece)>;
  static void write(const KvCache& cache, const Put& put, const std::function<void()>& end_block);

  // Gives the next block, of so many bytes.
  using Next = std::function<std::span<const std::byte>(std::uint64_t n_bytes)>;
  // A cache for up to n_ctx >= length positions. Throws Error(kResource), and what `next` throws.
  [[nodiscard]] static KvCache read(std::shared_ptr<KvArena> arena, const KvRecord& record,
                                    int n_ctx, const Next& next);

 private:
  static void write_pages(const KvCache& cache, const Put& put,
                          const std::function<void()>& end_block);
  static void write_states(const RecurrentCache& cache, int length, const Put& put,
                           const std::function<void()>& end_block);
  static void read_pages(KvCache& cache, const KvRecord& record, const Next& next);
  static void read_states(RecurrentCache& cache, const KvRecord& record, const Next& next);
};

}  // namespace specdec
