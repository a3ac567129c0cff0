// The states of a sequence's recurrent layers. A state cannot be cut off like keys and values, so a
// position is gone back to by way of an earlier state and the inputs of the rows behind it: the
// same arithmetic in the same order, hence the same bits.
//
// Per layer there is a state that passes work on (the tip) and the inputs of the last n_logged()
// positions. Every n_logged() / 2 positions, and before a pass that overwrites inputs which are
// needed, the tip is copied to a checkpoint. The newest ones make rollbacks cheap, a few older ones
// the way back to a chat's beginning short.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backend/recurrent_layout.h"
#include "kv/kv_arena.h"

namespace specdec {

// Not thread-safe; forks may be used by different threads.
class RecurrentCache {
 public:
  RecurrentCache(std::shared_ptr<KvArena> arena, const RecurrentShape& shape, int n_layers);

  // The last position up to n to which truncate() can go.
  [[nodiscard]] int reachable(int n) const;
  // Room for a pass of rows at `base`; `revocable`: some of them may be dropped again, so all their
  // inputs are logged. Throws Error(kResource); then nothing has changed.
  void reserve(int base, int n_rows, bool revocable);
  // Drops the positions from n on, n == reachable(n).
  void truncate(int n);
  // Whether the inputs of all rows behind `base` are there.
  [[nodiscard]] bool has_logged(int base) const;
  // The rows base + rows[i], all logged, become base + i. The caller truncates.
  void keep_path(int base, std::span<const std::int32_t> rows);
  [[nodiscard]] RecurrentCache fork() const;
  [[nodiscard]] std::size_t n_bytes() const noexcept;

  // A pass through one layer, whose rows follow position `base`, in this order:
  // 1. the tip, with the state of position `from` <= base: the inputs from..base - 1 are to be fed
  struct Tip {
    float* state;
    int from;
  };
  [[nodiscard]] Tip begin(int layer, int base);
  // 2. the tip is at base: its checkpoint is taken, and room for the inputs of n_rows rows claimed;
  // returns the first position of which they are to be written to input()
  [[nodiscard]] int claim(int layer, int base, int n_rows);
  [[nodiscard]] float* input(int layer, int position) const;
  // 3. the rows were fed; the tip has taken them in unless they are a tree.
  void note(int layer, int base, int n_rows, bool tree);

  // What it usually grows to.
  [[nodiscard]] static std::size_t full_bytes(const RecurrentShape& shape, int n_layers);

  static constexpr int kLogged = 64;          // a power of two
  static constexpr std::size_t kMaxKept = 4;  // checkpoints

 private:
  friend class KvStore;
  struct Layer {
    int tip = -1;       // position of the tip, -1: it is of no use
    int log_begin = 0;  // inputs of [log_begin, end) are logged
    int end = 0;        // positions that have been fed
  };
  struct Checkpoint {
    int position = 0;
    KvPage states;
    std::vector<bool> has;  // [n_layers]
  };
  struct Source {
    const float* state;  // null: zeros
    int position;
  };

  [[nodiscard]] std::size_t states_bytes() const;
  [[nodiscard]] std::size_t log_bytes(int n_logged) const;
  [[nodiscard]] float* state_of(const KvPage& states, int layer) const;
  // From where the layer gets to position n.
  [[nodiscard]] std::optional<Source> source(int layer, int n) const;
  // The same by checkpoints only, of which `without` is not counted.
  [[nodiscard]] std::optional<Source> kept_source(int layer, int n,
                                                  const Checkpoint* without = nullptr) const;
  [[nodiscard]] bool all_reach(int n) const;
  void grow_log(int n_rows);
  [[nodiscard]] bool wants_checkpoint(int base, int n_rows) const;
  void thin_out(int base);

  std::shared_ptr<KvArena> arena_;
  RecurrentShape shape_;
  std::vector<Layer> layers_;
  KvPage tips_;  // null: nothing was fed
  KvPage log_;   // [n_layers][n_logged_][input_stride]: position p at p % n_logged_
  int n_logged_ = 0;
  std::vector<Checkpoint> checkpoints_;  // by position; those of position 0 are zeros and not here
};

}  // namespace specdec
