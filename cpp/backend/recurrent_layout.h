// How a recurrent layer's state and inputs lie in memory, shared by the cache that owns them and
// the kernels.
//
// A gated delta rule keeps, per value head, a matrix of keys to values that it decays and corrects
// with every row; before it q, k and v pass a causal convolution of n_taps rows, channel by
// channel.
//   state of a layer   [n_heads][key_dim][value_dim], then [n_taps - 1][n_channels]: the inputs of
//                      the rows before, oldest first
//   inputs of a row    q of all key heads, k of all key heads, v of all heads; alpha [n_heads],
//                      beta [n_heads]; grouped: per key head beta of its heads, then alpha of them
// All of it is F32: sums over a whole text lose what is rounded away.
#pragma once

#include <cstddef>
#include <cstdint>

namespace specdec {

struct RecurrentShape {
  int n_heads = 0;  // of values; 0: there are no such layers
  int n_key_heads = 0;
  int key_dim = 0;
  int value_dim = 0;  // a multiple of 16
  int n_taps = 0;
  bool grouped = false;  // heads of a key head follow each other, else come in turn

  friend bool operator==(const RecurrentShape&, const RecurrentShape&) = default;

  [[nodiscard]] constexpr int key_head(int head) const {
    return grouped ? head / (n_heads / n_key_heads) : head % n_key_heads;
  }
  // Behind the channels of a row's inputs.
  [[nodiscard]] constexpr int alpha_at(int head) const {
    return grouped ? head + (head / (n_heads / n_key_heads) + 1) * (n_heads / n_key_heads) : head;
  }
  [[nodiscard]] constexpr int beta_at(int head) const {
    return grouped ? head + head / (n_heads / n_key_heads) * (n_heads / n_key_heads)
                   : n_heads + head;
  }
  [[nodiscard]] constexpr std::int64_t value_size() const {
    return std::int64_t{n_heads} * value_dim;
  }
  [[nodiscard]] constexpr std::int64_t key_size() const {
    return std::int64_t{n_key_heads} * key_dim;
  }
  [[nodiscard]] constexpr std::int64_t n_channels() const { return 2 * key_size() + value_size(); }
  [[nodiscard]] constexpr std::int64_t input_size() const {
    return n_channels() + 2 * std::int64_t{n_heads};
  }
  [[nodiscard]] constexpr std::int64_t matrices_size() const { return value_size() * key_dim; }
  // Floats of a layer's state and of a row's inputs, padded to cache lines.
  [[nodiscard]] constexpr std::int64_t state_stride() const {
    return (matrices_size() + (n_taps - 1) * n_channels() + 15) / 16 * 16;
  }
  [[nodiscard]] constexpr std::int64_t input_stride() const {
    return (input_size() + 15) / 16 * 16;
  }
};

}  // namespace specdec
