// One head of the gated delta rule. Columns of the state do not know of each other, so a block of
// them sees all rows before the next one does; sums over keys run in the order of the keys.
// Included inside a target region after elementwise-inl.h.
#pragma once

namespace specdec::SPECDEC_KERNELS {
namespace {

struct RecurrentHead {
  const RecurrentTask& task;
  const RecurrentScratch plan;
  float* scratch;
  int head;

  float* row(int r) const {
    return scratch + plan.rows + static_cast<std::size_t>(r) * plan.row_stride;
  }
  float* q(int r) const { return row(r); }
  float* k(int r) const { return row(r) + task.shape.key_dim; }
  float* v(int r) const { return row(r) + 2 * task.shape.key_dim; }
  float* out(int r) const { return v(r) + task.shape.value_dim; }
  float& decay(int r) const { return out(r)[task.shape.value_dim]; }
  float& correction(int r) const { return out(r)[task.shape.value_dim + 1]; }
  float* matrix() const {
    return task.state + std::int64_t{head} * task.shape.key_dim * task.shape.value_dim;
  }
  float* state_of(int r) const {
    return scratch + plan.states + static_cast<std::size_t>(r) * plan.state_stride;
  }
  int parent(int r) const { return task.parents != nullptr ? task.parents[r] : r - 1; }

  // The head's channels are those of its q, k and v.
  void take_taps() const {
    const RecurrentShape& s = task.shape;
    const int n = 2 * s.key_dim + s.value_dim;
    for (int part = 0; part < 3; ++part) {
      const float* from = task.conv + channel(part) * s.n_taps;
      float* to = scratch + plan.taps + part * s.key_dim;
      const int n_channels = part < 2 ? s.key_dim : s.value_dim;
      for (int c = 0; c < n_channels; ++c) {
        for (int t = 0; t < s.n_taps; ++t) to[t * n + c] = from[c * s.n_taps + t];
      }
    }
  }
  // First channel of q, k or v.
  std::int64_t channel(int part) const {
    const RecurrentShape& s = task.shape;
    const std::int64_t key_head = s.key_head(head);
    if (part == 0) return key_head * s.key_dim;
    if (part == 1) return s.key_size() + key_head * s.key_dim;
    return 2 * s.key_size() + std::int64_t{head} * s.value_dim;
  }

  void convolve(int r) const {
    const RecurrentShape& s = task.shape;
    const int n = 2 * s.key_dim + s.value_dim;
    const float* inputs[kMaxRecurrentTaps];  // oldest first
    int ancestor = r;
    int kept = s.n_taps - 2;  // of the state's inputs, the newest that was not taken yet
    for (int t = s.n_taps - 1; t >= 0; --t) {
      if (ancestor >= 0) {
        inputs[t] = task.inputs[ancestor];
        ancestor = parent(ancestor);
      } else {
        inputs[t] = task.state + s.matrices_size() + kept-- * s.n_channels();
      }
    }
    for (int part = 0; part < 3; ++part) {
      const std::int64_t first = channel(part);
      const float* taps = scratch + plan.taps + part * s.key_dim;
      float* dst = row(r) + part * s.key_dim;
      const int n_channels = part < 2 ? s.key_dim : s.value_dim;
      for (int c = 0; c < n_channels; c += 16) {
        F32x16 sum = F32x16::load(taps + c) * F32x16::load(inputs[0] + first + c);
        for (int t = 1; t < s.n_taps; ++t)
          sum = fma(F32x16::load(taps + t * n + c), F32x16::load(inputs[t] + first + c), sum);
        silu(sum).store(dst + c);
      }
    }
  }

  void scale(float* x, float factor) const {
    const int n = task.shape.key_dim;
    constexpr float kEpsilon = 1e-6F;  // a constant of the rule, not the norms' of the model
    const float square = sum_row(x, n, 0, SquareTerm{F32x16::zero()});
    const F32x16 scale = F32x16::set1(factor / std::sqrt(square + kEpsilon));
    for (int i = 0; i < n; i += 16) (F32x16::load(x + i) * scale).store(x + i);
  }

  void prepare(int r) const {
    convolve(r);
    scale(q(r), 1.0F / std::sqrt(static_cast<float>(task.shape.key_dim)));
    scale(k(r), 1.0F);
    const float* gates = task.inputs[r] + task.shape.n_channels();
    float lanes[16];
    const F32x16 step =
        softplus(F32x16::set1(gates[task.shape.alpha_at(head)] + task.step_bias[head]));
    exp(F32x16::set1(task.decay[head]) * step).store(lanes);
    decay(r) = lanes[0];
    sigmoid(F32x16::set1(gates[task.shape.beta_at(head)])).store(lanes);
    correction(r) = lanes[0];
  }

  // One row for 16 kVectors columns from `column` on.
  template <int kVectors>
  void step(int r, int column, const float* from, std::int64_t from_stride, float* to,
            std::int64_t to_stride) const {
    const int n_keys = task.shape.key_dim;
    const float* keys = k(r);
    const float* queries = q(r);
    const F32x16 fade = F32x16::set1(decay(r));
    F32x16 sum[kVectors];
    for (F32x16& s : sum) s = F32x16::zero();
    for (int i = 0; i < n_keys; ++i) {
      const F32x16 key = F32x16::set1(keys[i]);
      for (int j = 0; j < kVectors; ++j)
        sum[j] = fma(key, F32x16::load(from + i * from_stride + 16 * j) * fade, sum[j]);
    }
    const F32x16 rate = F32x16::set1(correction(r));
    F32x16 update[kVectors];
    for (int j = 0; j < kVectors; ++j) {
      update[j] = (F32x16::load(v(r) + column + 16 * j) - sum[j]) * rate;
      sum[j] = F32x16::zero();
    }
    for (int i = 0; i < n_keys; ++i) {
      const F32x16 key = F32x16::set1(keys[i]);
      const F32x16 query = F32x16::set1(queries[i]);
      for (int j = 0; j < kVectors; ++j) {
        const F32x16 state =
            fma(key, update[j], F32x16::load(from + i * from_stride + 16 * j) * fade);
        state.store(to + i * to_stride + 16 * j);
        sum[j] = fma(query, state, sum[j]);
      }
    }
    for (int j = 0; j < kVectors; ++j) sum[j].store(out(r) + column + 16 * j);
  }

  template <int kVectors>
  void columns(int column) const {
    const std::int64_t stride = task.shape.value_dim;
    float* const matrix_columns = matrix() + column;
    for (int r = 0; r < task.n_rows; ++r) {
      if (task.parents == nullptr) {
        step<kVectors>(r, column, matrix_columns, stride, matrix_columns, stride);
      } else if (parent(r) < 0) {
        step<kVectors>(r, column, matrix_columns, stride, state_of(r), kRecurrentColumns);
      } else {
        step<kVectors>(r, column, state_of(parent(r)), kRecurrentColumns, state_of(r),
                       kRecurrentColumns);
      }
    }
  }

  void run() const {
    take_taps();
    for (int r = 0; r < task.n_rows; ++r) prepare(r);
    int column = 0;
    for (; column + 64 <= task.shape.value_dim; column += 64) columns<4>(column);
    for (; column < task.shape.value_dim; column += 16) columns<1>(column);
    if (task.out == nullptr) return;
    const std::int64_t n = task.shape.value_dim;
    for (int r = 0; r < task.n_rows; ++r) {
      float* dst = task.out + r * task.out_stride + head * n;
      norm(task.norm, out(r), n, dst);
      activate_multiply(Activation::kSilu, task.gate + r * task.gate_stride + head * n, dst, n,
                        dst);
    }
  }
};

void recurrent_head(const RecurrentTask& task, int head, float* scratch) noexcept {
  RecurrentHead{task, RecurrentScratch(task), scratch, head}.run();
}

}  // namespace
}  // namespace specdec::SPECDEC_KERNELS
