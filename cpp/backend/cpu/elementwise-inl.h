// Norms, activations, addition and reductions. Included inside a target region after math-inl.h.
#pragma once

namespace specdec::SPECDEC_KERNELS {
namespace {

// Sum of term(x[i..i+16)) over a row: four running sums of 16 lanes, combined in a fixed order.
// The tail is padded with `fill`, which must contribute zero.
template <class Term>
inline float sum_row(const float* x, std::int64_t n, float fill, Term term) {
  F32x16 acc[4] = {F32x16::zero(), F32x16::zero(), F32x16::zero(), F32x16::zero()};
  std::int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    for (int j = 0; j < 4; ++j) acc[j] = term(F32x16::load(x + i + 16 * j), acc[j]);
  }
  for (int j = 0; i < n; i += 16, ++j) {
    const std::int64_t left = n - i;
    acc[j] = term(left >= 16 ? F32x16::load(x + i) : load_partial(x + i, left, fill), acc[j]);
  }
  return sum_lanes((acc[0] + acc[1]) + (acc[2] + acc[3]));
}

struct AddTerm {
  F32x16 operator()(F32x16 x, F32x16 acc) const { return acc + x; }
};
struct SquareTerm {
  F32x16 centre;
  F32x16 operator()(F32x16 x, F32x16 acc) const { return fma(x - centre, x - centre, acc); }
};

// dst[i] = map(a[i], b[i]) with vectors of 16 and a padded tail.
template <class Map>
inline void map2(const float* a, const float* b, std::int64_t n, float* dst, Map map) {
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) map(F32x16::load(a + i), F32x16::load(b + i)).store(dst + i);
  if (i < n) {
    store_partial(map(load_partial(a + i, n - i, 0), load_partial(b + i, n - i, 0)), dst + i,
                  n - i);
  }
}

struct ScaleWeight {
  F32x16 centre, scale;
  F32x16 operator()(F32x16 x, F32x16 weight) const { return (x - centre) * scale * weight; }
};
struct Add {
  F32x16 operator()(F32x16 x, F32x16 y) const { return x + y; }
};
struct Activate {
  Activation activation;
  F32x16 operator()(F32x16 x, F32x16 /*unused*/) const { return apply(activation, x); }
};
struct SoftCap {
  F32x16 inverse, cap;
  F32x16 operator()(F32x16 x, F32x16 /*unused*/) const { return tanh(x * inverse) * cap; }
};
struct ActivateMultiply {
  Activation activation;
  F32x16 operator()(F32x16 gate, F32x16 up) const { return apply(activation, gate) * up; }
};
struct ClampedSwiglu {
  F32x16 operator()(F32x16 gate, F32x16 up) const {
    const F32x16 largest = F32x16::set1(7.0F);
    const F32x16 one = F32x16::set1(1.0F);
    const F32x16 x = min(gate, largest);
    const F32x16 y = max(min(up, largest), F32x16::zero() - largest);
    return x / (one + exp(x * F32x16::set1(-1.702F))) * (y + one);
  }
};

void norm(const Norm& norm, const float* x, std::int64_t n, float* out) noexcept {
  const auto count = static_cast<float>(n);
  float mean = 0;
  if (norm.kind == Norm::Kind::kLayer) mean = sum_row(x, n, 0, AddTerm{}) / count;
  const float variance = sum_row(x, n, mean, SquareTerm{F32x16::set1(mean)}) / count;
  const float scale = 1.0F / std::sqrt(variance + norm.epsilon);
  map2(x, norm.weight, n, out, ScaleWeight{F32x16::set1(mean), F32x16::set1(scale)});
  if (norm.kind == Norm::Kind::kLayer && norm.bias != nullptr) map2(out, norm.bias, n, out, Add{});
}

void activate(Activation activation, float* x, std::int64_t n) noexcept {
  if (activation == Activation::kNone) return;
  map2(x, x, n, x, Activate{activation});
}

void soft_cap(float cap, float* x, std::int64_t n) noexcept {
  map2(x, x, n, x, SoftCap{F32x16::set1(1.0F / cap), F32x16::set1(cap)});
}

void activate_multiply(Activation activation, const float* gate, const float* up, std::int64_t n,
                       float* dst) noexcept {
  if (activation == Activation::kClampedSwiglu) return map2(gate, up, n, dst, ClampedSwiglu{});
  map2(gate, up, n, dst, ActivateMultiply{activation});
}

void add(const float* x, std::int64_t n, float* dst) noexcept { map2(dst, x, n, dst, Add{}); }

float max_finite(const float* x, std::int64_t n) noexcept {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const F32x16 infinity = F32x16::set1(kInfinity);
  const F32x16 one = F32x16::set1(1.0F);
  F32x16 bad = F32x16::zero();  // nonzero where a NaN or +infinity was seen
  F32x16 best = F32x16::set1(-kInfinity);
  for (std::int64_t i = 0; i < n; i += 16) {
    const F32x16 v = i + 16 <= n ? F32x16::load(x + i) : load_partial(x + i, n - i, -kInfinity);
    best = max(best, v);
    bad = select_less(v, infinity, bad, one);
  }
  if (max_lanes(bad) > 0) return std::numeric_limits<float>::quiet_NaN();
  return max_lanes(best);
}

struct ExpTerm {
  F32x16 max;
  F32x16 operator()(F32x16 x, F32x16 acc) const { return acc + exp(x - max); }
};

float sum_exp(const float* x, std::int64_t n, float max) noexcept {
  return sum_row(x, n, -std::numeric_limits<float>::infinity(), ExpTerm{F32x16::set1(max)});
}

}  // namespace
}  // namespace specdec::SPECDEC_KERNELS
