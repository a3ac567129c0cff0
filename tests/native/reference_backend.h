// A backend written from the definitions in backend.h, in double precision and plain loops: the
// oracle that whole-model tests compare the real one with. It does not quantise activations.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numbers>
#include <numeric>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "quant/codec.h"
#include "tensor/half.h"

namespace specdec::testing {

class ReferenceMatrix final : public WeightMatrix {
 public:
  ReferenceMatrix(DType dtype, std::int64_t n_out, std::int64_t n_in,
                  std::span<const std::byte> data)
      : dtype_(dtype), n_out_(n_out), n_in_(n_in), values_(static_cast<std::size_t>(n_out * n_in)) {
    codec(dtype).dequantize(data.data(), values_.data(), n_out * n_in);
  }
  [[nodiscard]] DType dtype() const override { return dtype_; }
  [[nodiscard]] std::int64_t n_out() const override { return n_out_; }
  [[nodiscard]] std::int64_t n_in() const override { return n_in_; }
  [[nodiscard]] std::size_t n_bytes() const override { return values_.size() * sizeof(float); }

  [[nodiscard]] double dot(std::int64_t row, const std::vector<double>& x) const {
    double sum = 0;
    const float* w = values_.data() + row * n_in_;
    for (std::size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(w[i]) * x[i];
    return sum;
  }

 private:
  DType dtype_;
  std::int64_t n_out_, n_in_;
  std::vector<float> values_;  // [n_out, n_in]
};

class ReferenceBackend final : public Backend {
 public:
  [[nodiscard]] BackendInfo info() const override { return {"reference", "plain loops", 1}; }

  [[nodiscard]] std::unique_ptr<WeightMatrix> load_matrix(
      DType dtype, std::int64_t n_out, std::int64_t n_in,
      std::span<const std::byte> data) override {
    return std::make_unique<ReferenceMatrix>(dtype, n_out, n_in, data);
  }

  void linear(const LinearTask& task) override {
    for (int r = 0; r < task.n_rows; ++r) {
      const std::int64_t source = task.row_index != nullptr ? task.row_index[r] : r;
      const float* x = task.x + source * task.x_stride;
      const std::vector<double> input = normalise(task.norm, x, task.segments[0].weight->n_in());
      for (const LinearSegment& segment : task.segments) {
        const auto& w = dynamic_cast<const ReferenceMatrix&>(*segment.weight);
        for (std::int64_t i = 0; i < w.n_out(); ++i) {
          double y = w.dot(i, input) +
                     (segment.bias != nullptr ? static_cast<double>(segment.bias[i]) : 0.0);
          y = activate(segment.activation, y);
          float& dst = segment.dst[r * segment.dst_stride + i];
          dst = static_cast<float>(segment.accumulate ? static_cast<double>(dst) + y : y);
        }
      }
    }
  }

  void gated_linear(const GatedLinearTask& task) override {
    const auto& gate = dynamic_cast<const ReferenceMatrix&>(*task.gate);
    const auto& up = dynamic_cast<const ReferenceMatrix&>(*task.up);
    for (int r = 0; r < task.n_rows; ++r) {
      const std::int64_t source = task.row_index != nullptr ? task.row_index[r] : r;
      const std::vector<double> input =
          normalise(task.norm, task.x + source * task.x_stride, gate.n_in());
      for (std::int64_t i = 0; i < gate.n_out(); ++i) {
        const double g = gate.dot(i, input) + at_or_0(task.gate_bias, i);
        const double u = up.dot(i, input) + at_or_0(task.up_bias, i);
        task.dst[r * task.dst_stride + i] = static_cast<float>(gated(task.activation, g, u));
      }
    }
  }

  void rope_store(const RopeStoreTask& t) override {
    for (int r = 0; r < t.n_rows; ++r) {
      const float* table = t.cos_sin + static_cast<std::int64_t>(r) * t.n_rot;
      for (int h = 0; h < t.n_heads; ++h) {
        float* q = t.q + r * t.q_stride + h * t.head_dim;
        const std::vector<float> turned = rotate(t, q, table);
        std::copy(turned.begin(), turned.end(), q);
      }
      for (int h = 0; h < t.n_kv_heads; ++h) {
        const std::vector<float> k = rotate(t, t.k + r * t.k_stride + h * t.head_dim, table);
        store(t.cache, h, t.first_slot + r, true, k.data());
        store(t.cache, h, t.first_slot + r, false, t.v + r * t.v_stride + h * t.head_dim);
      }
    }
  }

  void attention(const AttentionTask& t) override {
    const int group = t.n_heads / t.n_kv_heads;
    for (int r = 0; r < t.n_rows; ++r) {
      std::vector<int> slots;  // newest first
      for (int a = r; a >= 0; a = t.parents != nullptr ? t.parents[a] : a - 1)
        slots.push_back(t.first_slot + a);
      for (int s = t.first_slot - 1; s >= 0; --s) slots.push_back(s);
      if (t.window > 0) slots.resize(std::min(slots.size(), static_cast<std::size_t>(t.window)));
      for (int h = 0; h < t.n_heads; ++h) {
        const float* q = t.q + r * t.q_stride + h * t.head_dim;
        std::vector<double> scores;
        for (const int slot : slots) {
          const std::vector<double> k = load(t.cache, h / group, slot, true);
          double score = 0;
          for (int d = 0; d < t.head_dim; ++d)
            score += static_cast<double>(q[d]) * k[static_cast<std::size_t>(d)];
          scores.push_back(capped(score * static_cast<double>(t.scale), t.soft_cap));
        }
        double largest = *std::max_element(scores.begin(), scores.end());
        double sum = 0;
        if (t.sinks != nullptr) {
          const auto sink = static_cast<double>(t.sinks[h]);
          largest = std::max(largest, sink);
          sum = std::exp(sink - largest);
        }
        std::vector<double> out(static_cast<std::size_t>(t.head_dim), 0.0);
        for (std::size_t s = 0; s < slots.size(); ++s) {
          const double weight = std::exp(scores[s] - largest);
          sum += weight;
          const std::vector<double> v = load(t.cache, h / group, slots[s], false);
          for (std::size_t d = 0; d < out.size(); ++d) out[d] += weight * v[d];
        }
        for (std::size_t d = 0; d < out.size(); ++d) {
          t.out[r * t.out_stride + h * t.head_dim + static_cast<int>(d)] =
              static_cast<float>(out[d] / sum);
        }
      }
    }
  }

  void norm(const NormTask& task) override {
    for (int r = 0; r < task.n_rows; ++r) {
      for (int g = 0; g < task.n_groups; ++g) {
        const std::int64_t at = g * task.n;
        const std::int64_t from = g * (task.x_group > 0 ? task.x_group : task.n);
        const std::vector<double> out =
            normalise(task.norm, task.x + r * task.x_stride + from, task.n);
        float* dst = task.dst + r * task.dst_stride + at;
        for (std::size_t i = 0; i < out.size(); ++i) {
          dst[i] =
              static_cast<float>(task.accumulate ? static_cast<double>(dst[i]) + out[i] : out[i]);
        }
      }
    }
  }

  void gate(const GateTask& t) override {
    for (int r = 0; r < t.n_rows; ++r) {
      for (int g = 0; g < t.n_groups; ++g) {
        for (std::int64_t i = 0; i < t.n; ++i) {
          const float gate = t.gate[r * t.gate_stride + g * t.gate_group + i];
          float& x = t.x[r * t.x_stride + g * t.n + i];
          x = static_cast<float>(static_cast<double>(x) *
                                 activate(t.activation, static_cast<double>(gate)));
        }
      }
    }
  }

  void recurrent(const RecurrentTask& t) override {
    const RecurrentShape& s = t.shape;
    for (int h = 0; h < s.n_heads; ++h) {
      std::vector<std::vector<float>> states;  // of a tree's rows
      for (int r = 0; r < t.n_rows; ++r) {
        float* const matrix = t.state + std::int64_t{h} * s.key_dim * s.value_dim;
        const auto size =
            static_cast<std::size_t>(s.key_dim) * static_cast<std::size_t>(s.value_dim);
        float* state = matrix;
        if (t.parents != nullptr) {
          const int parent = t.parents[r];
          const float* from = parent < 0 ? matrix : states[static_cast<std::size_t>(parent)].data();
          states.emplace_back(from, from + size);
          state = states.back().data();
        }
        recurrent_row(t, h, r, state);
      }
    }
    if (t.parents == nullptr) keep_inputs(t);
  }

  void head(const HeadTask& task) override {
    const auto n = static_cast<std::size_t>(task.n_tokens);
    for (int r = 0; r < task.n_rows; ++r) {
      const std::vector<double> input =
          normalise(task.norm, task.x + r * task.x_stride, task.weight->n_in());
      std::vector<float> row(n, -std::numeric_limits<float>::infinity());
      for (std::size_t i = 0; i < n; ++i) {
        const auto block = static_cast<std::int32_t>(i / kHeadBlock);
        if (!task.blocks.empty() &&
            !std::binary_search(task.blocks.begin(), task.blocks.end(), block))
          continue;
        row[i] = static_cast<float>(
            capped(dynamic_cast<const ReferenceMatrix&>(*task.weight)
                           .dot(static_cast<std::int64_t>(i), input) +
                       (task.bias != nullptr ? static_cast<double>(task.bias[i]) : 0.0),
                   task.soft_cap));
      }
      if (task.logits != nullptr)
        std::copy(row.begin(), row.end(), task.logits + r * task.logits_stride);
      std::vector<TokenId> order(n);
      std::iota(order.begin(), order.end(), 0);
      const auto at = [&](TokenId t) { return row[static_cast<std::size_t>(t)]; };
      std::stable_sort(order.begin(), order.end(),
                       [&](TokenId a, TokenId b) { return at(a) > at(b); });
      const bool has_nan =
          std::any_of(row.begin(), row.end(), [](float x) { return std::isnan(x); });
      double sum = 0;
      for (const float x : row)
        sum += std::exp(static_cast<double>(x) - static_cast<double>(at(order[0])));
      for (int k = 0; k < task.top_k; ++k) {
        const TokenId token =
            static_cast<std::size_t>(k) < n ? order[static_cast<std::size_t>(k)] : -1;
        const bool valid = token >= 0 && !has_nan && std::isfinite(at(token));
        task.top[r * task.top_k + k] = valid ? TopToken{token, at(token)} : TopToken{};
      }
      if (task.log_sum_exp != nullptr)
        task.log_sum_exp[r] = static_cast<float>(static_cast<double>(at(order[0])) + std::log(sum));
    }
  }

 private:
  // silu of the convolution of n channels from `first` on.
  static std::vector<double> convolve(const RecurrentTask& t, int row, std::int64_t first, int n) {
    const RecurrentShape& s = t.shape;
    std::vector<double> out(static_cast<std::size_t>(n), 0.0);
    int at = row;  // below 0: the state's inputs, -1 the newest
    for (int tap = s.n_taps - 1; tap >= 0; --tap) {
      const float* inputs =
          at >= 0 ? t.inputs[at]
                  : t.state + s.matrices_size() + (s.n_taps - 1 + at) * s.n_channels();
      for (std::int64_t i = 0; i < n; ++i) {
        out[static_cast<std::size_t>(i)] +=
            static_cast<double>(t.conv[(first + i) * s.n_taps + tap]) *
            static_cast<double>(inputs[first + i]);
      }
      at = at >= 0 && t.parents != nullptr ? t.parents[at] : at - 1;
    }
    for (double& x : out) x = activate(Activation::kSilu, x);
    return out;
  }

  static void to_length(std::vector<double>& x, double length) {
    double square = 1e-6;
    for (const double value : x) square += value * value;
    for (double& value : x) value *= length / std::sqrt(square);
  }

  static void recurrent_row(const RecurrentTask& t, int h, int r, float* state) {
    const RecurrentShape& s = t.shape;
    const std::int64_t key_head = s.grouped ? h / (s.n_heads / s.n_key_heads) : h % s.n_key_heads;
    std::vector<double> q = convolve(t, r, key_head * s.key_dim, s.key_dim);
    std::vector<double> k = convolve(t, r, s.key_size() + key_head * s.key_dim, s.key_dim);
    const std::vector<double> v =
        convolve(t, r, 2 * s.key_size() + std::int64_t{h} * s.value_dim, s.value_dim);
    to_length(q, 1.0 / std::sqrt(static_cast<double>(s.key_dim)));
    to_length(k, 1.0);
    const float* gates = t.inputs[r] + s.n_channels();
    const double step =
        static_cast<double>(gates[s.alpha_at(h)]) + static_cast<double>(t.step_bias[h]);
    const double fade = std::exp(static_cast<double>(t.decay[h]) *
                                 (std::max(step, 0.0) + std::log1p(std::exp(-std::abs(step)))));
    const double rate = activate(Activation::kSigmoid, static_cast<double>(gates[s.beta_at(h)]));
    std::vector<float> out(static_cast<std::size_t>(s.value_dim));
    for (std::size_t j = 0; j < out.size(); ++j) {
      double found = 0;
      for (std::size_t i = 0; i < k.size(); ++i)
        found += k[i] * fade * static_cast<double>(state[i * out.size() + j]);
      double sum = 0;
      for (std::size_t i = 0; i < k.size(); ++i) {
        float& x = state[i * out.size() + j];
        x = static_cast<float>(fade * static_cast<double>(x) + k[i] * (v[j] - found) * rate);
        sum += q[i] * static_cast<double>(x);
      }
      out[j] = static_cast<float>(sum);
    }
    if (t.out == nullptr) return;
    const std::vector<double> normed = normalise(t.norm, out.data(), s.value_dim);
    for (std::size_t j = 0; j < out.size(); ++j) {
      const std::int64_t at = std::int64_t{h} * s.value_dim + static_cast<std::int64_t>(j);
      const auto z = static_cast<double>(t.gate[r * t.gate_stride + at]);
      t.out[r * t.out_stride + at] = static_cast<float>(normed[j] * activate(Activation::kSilu, z));
    }
  }

  static void keep_inputs(const RecurrentTask& t) {
    const auto n = static_cast<std::size_t>(t.shape.n_channels());
    const auto n_kept = static_cast<std::size_t>(t.shape.n_taps - 1);
    float* kept = t.state + t.shape.matrices_size();
    std::vector<float> all(kept, kept + n_kept * n);
    for (int r = 0; r < t.n_rows; ++r) all.insert(all.end(), t.inputs[r], t.inputs[r] + n);
    std::copy(all.end() - static_cast<std::ptrdiff_t>(n_kept * n), all.end(), kept);
  }

  static double at_or_0(const float* x, std::int64_t i) {
    return x == nullptr ? 0.0 : static_cast<double>(x[i]);
  }

  static double gated(Activation activation, double gate, double up) {
    if (activation != Activation::kClampedSwiglu) return activate(activation, gate) * up;
    const double x = std::min(gate, 7.0);
    return x / (1.0 + std::exp(-1.702 * x)) * (std::clamp(up, -7.0, 7.0) + 1.0);
  }

  static double activate(Activation activation, double x) {
    if (activation == Activation::kSilu) return x / (1.0 + std::exp(-x));
    if (activation == Activation::kSigmoid) return 1.0 / (1.0 + std::exp(-x));
    if (activation == Activation::kGeluErf) return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
    if (activation == Activation::kGeluTanh) {
      const double u = std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x);
      return 0.5 * x * (1.0 + std::tanh(u));
    }
    return x;
  }

  static double capped(double x, float cap) {
    const auto c = static_cast<double>(cap);
    return cap > 0 ? c * std::tanh(x / c) : x;
  }

  static std::vector<double> normalise(const Norm& norm, const float* x, std::int64_t n) {
    std::vector<double> out(x, x + n);
    if (norm.kind == Norm::Kind::kNone) return out;
    double mean = 0;
    if (norm.kind == Norm::Kind::kLayer) {
      for (const double value : out) mean += value / static_cast<double>(n);
    }
    double square = 0;
    for (const double value : out)
      square += (value - mean) * (value - mean) / static_cast<double>(n);
    const double scale = 1.0 / std::sqrt(square + static_cast<double>(norm.epsilon));
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] = (out[i] - mean) * scale * static_cast<double>(norm.weight[i]);
      if (norm.bias != nullptr) out[i] += static_cast<double>(norm.bias[i]);
    }
    return out;
  }

  static std::vector<float> rotate(const RopeStoreTask& t, const float* x, const float* table) {
    std::vector<float> out(x, x + t.head_dim);
    const int n_pairs = t.n_rot / 2;
    for (int i = 0; i < n_pairs; ++i) {
      const int first = t.interleaved ? 2 * i : i;
      const int second = t.interleaved ? 2 * i + 1 : i + n_pairs;
      const double c = static_cast<double>(table[i]);
      const double s = static_cast<double>(table[n_pairs + i]);
      const double a = static_cast<double>(x[first]);
      const double b = static_cast<double>(x[second]);
      out[static_cast<std::size_t>(first)] = static_cast<float>(a * c - b * s);
      out[static_cast<std::size_t>(second)] = static_cast<float>(a * s + b * c);
    }
    return out;
  }

  // Element and scale numbers of dimension d of a slot within its kv head's part.
  static std::size_t element_index(const KvLayout& layout, bool is_key, int in_page, int d) {
    if (!is_key) return static_cast<std::size_t>(in_page * layout.v_stride() + d);
    return static_cast<std::size_t>((in_page / kKvLane * layout.head_dim + d) * kKvLane +
                                    in_page % kKvLane);
  }
  static std::size_t scale_index(const KvLayout& layout, bool is_key, int in_page, int d) {
    const int n_scales = layout.n_scales();
    if (!is_key) return static_cast<std::size_t>(in_page * n_scales + d / 32);
    return static_cast<std::size_t>((in_page / kKvLane * n_scales + d / 32) * kKvLane +
                                    in_page % kKvLane);
  }
  static std::byte* head_part(const KvLayerView& cache, int head, int slot) {
    return cache.pages[slot / kKvChunk] +
           static_cast<std::size_t>(head) * cache.layout.head_bytes();
  }

  static void store(const KvLayerView& cache, int head, int slot, bool is_key, const float* x) {
    const KvLayout& layout = cache.layout;
    std::byte* part = head_part(cache, head, slot);
    std::byte* elements = part + (is_key ? layout.k_offset() : layout.v_offset());
    std::byte* scales = part + (is_key ? layout.k_scales_offset() : layout.v_scales_offset());
    const int in_page = slot % kKvChunk;
    for (int d = 0; d < layout.head_dim; ++d) {
      const std::size_t at = element_index(layout, is_key, in_page, d);
      if (layout.type == KvType::kF32) {
        std::memcpy(elements + at * 4, x + d, 4);
      } else if (layout.type == KvType::kF16) {
        const std::uint16_t half = f32_to_f16(x[d]);
        std::memcpy(elements + at * 2, &half, 2);
      } else {
        const int block = d / 32 * 32;
        float largest = 0;
        for (int i = block; i < block + 32; ++i) largest = std::max(largest, std::fabs(x[i]));
        const float scale = largest / 127.0F;
        const std::uint16_t half = f32_to_f16(scale);
        std::memcpy(scales + scale_index(layout, is_key, in_page, d) * 2, &half, 2);
        const auto q = static_cast<std::int8_t>(scale > 0 ? std::lround(x[d] / scale) : 0);
        std::memcpy(elements + at, &q, 1);
      }
    }
  }

  static std::vector<double> load(const KvLayerView& cache, int head, int slot, bool is_key) {
    const KvLayout& layout = cache.layout;
    const std::byte* part = head_part(cache, head, slot);
    const std::byte* elements = part + (is_key ? layout.k_offset() : layout.v_offset());
    const std::byte* scales = part + (is_key ? layout.k_scales_offset() : layout.v_scales_offset());
    const int in_page = slot % kKvChunk;
    std::vector<double> out(static_cast<std::size_t>(layout.head_dim));
    for (int d = 0; d < layout.head_dim; ++d) {
      const std::size_t at = element_index(layout, is_key, in_page, d);
      float value = 0;
      if (layout.type == KvType::kF32) {
        std::memcpy(&value, elements + at * 4, 4);
      } else {
        std::uint16_t half = 0;
        const bool is_f16 = layout.type == KvType::kF16;
        std::memcpy(
            &half,
            is_f16 ? elements + at * 2 : scales + scale_index(layout, is_key, in_page, d) * 2, 2);
        value = f16_to_f32(half);
        if (!is_f16) value *= static_cast<float>(std::to_integer<std::int8_t>(elements[at]));
      }
      out[static_cast<std::size_t>(d)] = static_cast<double>(value);
    }
    return out;
  }
};

}  // namespace specdec::testing
