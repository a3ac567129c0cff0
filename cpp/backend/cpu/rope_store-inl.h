// Rotary position embedding and the store into the cache. Included inside a target region.
#pragma once

namespace specdec::SPECDEC_KERNELS {
namespace {

// Plain loops: no contraction, so the compiler's vector code has the bits of the scalar code.
inline void rotate(const RopeStoreTask& task, int row, float* x) {
  const int half = task.n_rot / 2;
  const float* cosines = task.cos_sin + static_cast<std::int64_t>(row) * task.n_rot;
  const float* sines = cosines + half;
  if (task.interleaved) {
    for (int i = 0; i < half; ++i) {
      const float a = x[2 * i];
      const float b = x[2 * i + 1];
      x[2 * i] = a * cosines[i] - b * sines[i];
      x[2 * i + 1] = a * sines[i] + b * cosines[i];
    }
    return;
  }
  float* y = x + half;
  for (int i = 0; i < half; ++i) {
    const float a = x[i];
    const float b = y[i];
    x[i] = a * cosines[i] - b * sines[i];
    y[i] = a * sines[i] + b * cosines[i];
  }
}

// 32 floats to int8 with one f16 scale, which is returned. Not finite: a NaN scale.
inline std::uint16_t quantise_32(const float* x, std::int8_t* q) {
  const F32x16 a = F32x16::load(x);
  const F32x16 b = F32x16::load(x + 16);
  const F32x16 infinity = F32x16::set1(std::numeric_limits<float>::infinity());
  const F32x16 one = F32x16::set1(1.0F);
  const F32x16 bad =
      select_less(abs(a), infinity, select_less(abs(b), infinity, F32x16::zero(), one), one);
  const float amax = max_lanes(max(abs(a), abs(b)));
  const bool finite = max_lanes(bad) == 0;
  std::uint16_t scale = finite ? f32_to_f16(amax / 127.0F) : 0x7E00U;
  if (scale == 0x7C00U) scale = 0x7BFFU;  // saturate
  if (!finite || scale == 0) {
    for (int i = 0; i < 32; ++i) q[i] = 0;
    return scale;
  }
  const F32x16 step = F32x16::set1(f16_to_f32(scale));
  const F32x16 limit = F32x16::set1(127.0F);  // a subnormal scale may be rounded far down
  const F32x16 lowest = F32x16::set1(-127.0F);
  store_i8(max(min(a / step, limit), lowest), q);
  store_i8(max(min(b / step, limit), lowest), q + 16);
  return scale;
}

// x: [v_stride], zero beyond head_dim. head: this kv head's part of the page.
inline void store_k(const KvLayout& layout, std::byte* head, int position, const float* x) {
  const int lane = position % kKvLane;
  const std::int64_t first =
      static_cast<std::int64_t>(position / kKvLane) * layout.head_dim * kKvLane + lane;
  if (layout.type == KvType::kF32) {
    float* dst = reinterpret_cast<float*>(head + layout.k_offset()) + first;
    for (int d = 0; d < layout.head_dim; ++d) dst[d * kKvLane] = x[d];
  } else if (layout.type == KvType::kF16) {
    auto* dst = reinterpret_cast<std::uint16_t*>(head + layout.k_offset()) + first;
    std::uint16_t half[16];
    for (int d0 = 0; d0 < layout.head_dim; d0 += 16) {
      F32x16::load(x + d0).store_f16(half);
      const int n = layout.head_dim - d0 < 16 ? layout.head_dim - d0 : 16;
      for (int i = 0; i < n; ++i) dst[(d0 + i) * kKvLane] = half[i];
    }
  } else {
    auto* dst = reinterpret_cast<std::int8_t*>(head + layout.k_offset()) + first;
    auto* scales = reinterpret_cast<std::uint16_t*>(head + layout.k_scales_offset()) +
                   position / kKvLane * layout.n_scales() * kKvLane + lane;
    std::int8_t bytes[32];
    for (int g = 0; g < layout.n_scales(); ++g) {
      scales[g * kKvLane] = quantise_32(x + 32 * g, bytes);
      for (int i = 0; i < 32; ++i) dst[(32 * g + i) * kKvLane] = bytes[i];
    }
  }
}

inline void store_v(const KvLayout& layout, std::byte* head, int position, const float* x) {
  const std::int64_t first = static_cast<std::int64_t>(position) * layout.v_stride();
  if (layout.type == KvType::kF32) {
    float* dst = reinterpret_cast<float*>(head + layout.v_offset()) + first;
    for (int d = 0; d < layout.v_stride(); d += 16) F32x16::load(x + d).store(dst + d);
  } else if (layout.type == KvType::kF16) {
    auto* dst = reinterpret_cast<std::uint16_t*>(head + layout.v_offset()) + first;
    for (int d = 0; d < layout.v_stride(); d += 16) F32x16::load(x + d).store_f16(dst + d);
  } else {
    auto* dst = reinterpret_cast<std::int8_t*>(head + layout.v_offset()) + first;
    auto* scales = reinterpret_cast<std::uint16_t*>(head + layout.v_scales_offset()) +
                   position * layout.n_scales();
    for (int g = 0; g < layout.n_scales(); ++g) scales[g] = quantise_32(x + 32 * g, dst + 32 * g);
  }
}

void rope_store(const RopeStoreTask& task, TaskContext& context) noexcept {
  const KvLayout& layout = task.cache.layout;
  const std::size_t row_bytes = static_cast<std::size_t>(task.head_dim) * sizeof(float);
  alignas(64) float buffer[kMaxHeadDim];
  for (int d = task.head_dim; d < layout.v_stride(); ++d) buffer[d] = 0;
  // Heads outside, rows inside: neighbouring rows of a key block are written by the same thread.
  const std::int64_t n_units =
      static_cast<std::int64_t>(task.n_heads + task.n_kv_heads) * task.n_rows;
  const std::int64_t begin = n_units * context.thread() / context.n_threads();
  const std::int64_t end = n_units * (context.thread() + 1) / context.n_threads();
  for (std::int64_t unit = begin; unit < end; ++unit) {
    const int row = static_cast<int>(unit % task.n_rows);
    const int head = static_cast<int>(unit / task.n_rows) - task.n_kv_heads;
    if (head >= 0) {
      if (task.n_rot > 0)
        rotate(task, row,
               task.q + row * task.q_stride + static_cast<std::int64_t>(head) * task.head_dim);
      continue;
    }
    const int kv_head = head + task.n_kv_heads;
    const int slot = task.first_slot + row;
    std::byte* part =
        task.cache.pages[slot / kKvChunk] + static_cast<std::size_t>(kv_head) * layout.head_bytes();
    const std::int64_t offset = static_cast<std::int64_t>(kv_head) * task.head_dim;
    std::memcpy(buffer, task.k + row * task.k_stride + offset, row_bytes);
    if (task.n_rot > 0) rotate(task, row, buffer);
    store_k(layout, part, slot % kKvChunk, buffer);
    std::memcpy(buffer, task.v + row * task.v_stride + offset, row_bytes);
    store_v(layout, part, slot % kKvChunk, buffer);
  }
}

}  // namespace
}  // namespace specdec::SPECDEC_KERNELS
