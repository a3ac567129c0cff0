// A program without Python: the kernels of every instruction set this machine has against the
// scalar ones. It runs where Python does not, for example under qemu or a sanitizer. Prints one
// line per check that fails, then a summary; exit status 1 on failure.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/wide/self_check.h"
#include "base/aligned_buffer.h"
#include "base/cpu_isa.h"
#include "base/error.h"
#include "quant/codec.h"
#include "quant/encode.h"

namespace specdec {
namespace {

int n_checks = 0;
int n_failures = 0;

void check(bool ok, const std::string& what) {
  ++n_checks;
  if (ok) return;
  ++n_failures;
  std::printf("FAILED %s\n", what.c_str());
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// A small generator of its own: the test must not depend on what it tests.
class Numbers {
 public:
  explicit Numbers(std::uint32_t seed) : state_(seed) {}
  std::uint32_t bits() {
    state_ = state_ * 1664525U + 1013904223U;
    return state_ >> 8;
  }
  float uniform() { return static_cast<float>(bits()) * 0x1.0p-23F - 1.0F; }  // [-1, 1)

 private:
  std::uint32_t state_;
};

// Random weights: every code occurs; scales are f16 numbers in (-2, 2).
std::vector<std::byte> random_weights(DType dtype, std::int64_t n, Numbers& numbers) {
  const DTypeTraits& traits = dtype_traits(dtype);
  std::vector<std::byte> data(static_cast<std::size_t>(n) / traits.block_elements *
                              traits.block_bytes);
  if (traits.block_elements == 1 || traits.half_at[0] == -1) {
    std::vector<float> values(static_cast<std::size_t>(n));
    for (float& value : values) value = numbers.uniform();
    encoder(dtype)(values.data(), data.data(), n);
    return data;
  }
  for (std::byte& b : data) b = static_cast<std::byte>(numbers.bits() & 0xFF);
  for (std::size_t block = 0; block < data.size(); block += traits.block_bytes) {
    for (const int offset : traits.half_at) {
      if (offset == -1) continue;
      const auto half =
          static_cast<std::uint16_t>((numbers.bits() & 0x83FFU) | (10 + numbers.bits() % 6) << 10);
      if (offset != kSpreadHalf) {
        std::memcpy(data.data() + block + offset, &half, 2);
        continue;
      }
      for (unsigned i = 0; i < 4; ++i) {
        std::byte& upper = data[block + traits.block_bytes - 7 + 2 * i];
        upper = (upper & std::byte{15}) | std::byte(half >> (4 * i) << 4);
      }
    }
  }
  return data;
}

std::vector<float> product(Backend& backend, const WeightMatrix& weight, const float* x,
                           int n_rows) {
  std::vector<float> y(static_cast<std::size_t>(n_rows * weight.n_out()));
  LinearSegment segment;
  segment.weight = &weight;
  segment.dst = y.data();
  segment.dst_stride = weight.n_out();
  LinearTask task;
  task.x = x;
  task.x_stride = weight.n_in();
  task.n_rows = n_rows;
  task.segments = {&segment, 1};
  backend.linear(task);
  return y;
}

// Weights of `fast` that are packed when they are needed, or were packed before.
void test_packed(Backend& fast, Backend& scalar, const WeightMatrix& weight,
                 const WeightMatrix& scalar_weight, std::span<const std::byte> data,
                 const float* x) {
  const auto equal = [](std::span<const std::byte> a, std::span<const std::byte> b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
  };
  const std::string what = fast.info().description + ", " + dtype_traits(weight.dtype()).name;
  const auto want = product(fast, weight, x, 3);
  const auto view = fast.map_matrix(weight.dtype(), weight.n_out(), weight.n_in(), data);
  check(same_bits(product(fast, *view, x, 3), want), what + ": without repacking");
  const std::span<const std::byte> packed = weight.packed();
  const auto kept = fast.use_packed(weight.dtype(), weight.n_out(), weight.n_in(), packed);
  check(same_bits(product(fast, *kept, x, 3), want), what + ": packed before");
  check(packed.size() == fast.packed_bytes(weight.dtype(), weight.n_out(), weight.n_in()),
        what + ": bytes of packed weights");
  if (fast.packed_layout() == scalar.packed_layout())
    check(equal(packed, scalar_weight.packed()), what + ": the same layout, the same bytes");
  else if (dtype_traits(weight.dtype()).block_elements > 1)
    check(!equal(packed, scalar_weight.packed()), what + ": another layout, other bytes");
}

void test_matmul(CpuIsa isa, const DTypeTraits& format, std::int64_t n_out, std::int64_t n_in) {
  Numbers numbers(7);
  const auto data = random_weights(format.dtype, n_out * n_in, numbers);
  std::vector<float> x(static_cast<std::size_t>(9 * n_in));
  for (float& value : x) value = numbers.uniform() * (numbers.bits() % 16 == 0 ? 20.0F : 1.0F);
  const auto scalar = make_cpu_backend(1, CpuIsa::kScalar);
  const auto fast = make_cpu_backend(1, isa);
  const auto want_weight = scalar->load_matrix(format.dtype, n_out, n_in, data);
  const auto weight = fast->load_matrix(format.dtype, n_out, n_in, data);
  const auto want = product(*scalar, *want_weight, x.data(), 9);
  const bool quantised = format.block_elements > 1;
  test_packed(*fast, *scalar, *weight, *want_weight, data, x.data());
  std::vector<float> first;
  for (int rows = 1; rows <= 9; ++rows) {
    const std::string what = std::string(cpu_isa_name(isa)) + " " + format.name + " [" +
                             std::to_string(n_out) + ", " + std::to_string(n_in) + "] " +
                             std::to_string(rows) + " rows";
    const auto got = product(*fast, *weight, x.data(), rows);
    const std::vector<float> part(want.begin(), want.begin() + static_cast<long>(got.size()));
    if (quantised) {
      check(same_bits(got, part), what + ": the bits of the scalar kernels");
      continue;
    }
    double worst = 0;
    for (std::size_t i = 0; i < got.size(); ++i)
      worst = std::max(worst, static_cast<double>(std::fabs(got[i] - part[i])));
    check(worst < 1e-5 * std::sqrt(static_cast<double>(n_in)) * 20, what + ": near the scalar");
    if (rows == 1) first = got;
    check(std::memcmp(first.data(), got.data(), first.size() * sizeof(float)) == 0,
          what + ": the first row's bits of one row");
  }
}

void test_ops(CpuIsa isa) {
  const OpsKernels& want = ops_kernels(CpuIsa::kScalar);
  const OpsKernels& got = ops_kernels(isa);
  Numbers numbers(11);
  for (const std::int64_t n : {1, 15, 16, 17, 64, 100, 576, 1031}) {
    std::vector<float> x(static_cast<std::size_t>(n));
    std::vector<float> weight(x.size());
    for (float& value : x) value = numbers.uniform() * 12;
    for (float& value : weight) value = numbers.uniform();
    std::vector<float> a(x.size());
    std::vector<float> b(x.size());
    const std::string what = std::string(cpu_isa_name(isa)) + " n " + std::to_string(n);
    for (const auto kind : {Norm::Kind::kRms, Norm::Kind::kLayer}) {
      const Norm norm{kind, weight.data(), kind == Norm::Kind::kLayer ? x.data() : nullptr, 1e-5F};
      want.norm(norm, x.data(), n, a.data());
      got.norm(norm, x.data(), n, b.data());
      check(same_bits(a, b), what + ": norm");
    }
    for (const auto activation : {Activation::kSilu, Activation::kGeluErf, Activation::kGeluTanh}) {
      want.activate_multiply(activation, x.data(), weight.data(), n, a.data());
      got.activate_multiply(activation, x.data(), weight.data(), n, b.data());
      check(same_bits(a, b), what + ": activation");
    }
    const float largest = want.max(x.data(), n);
    check(largest == got.max(x.data(), n), what + ": largest");
    check(want.sum_exp(x.data(), n, largest) == got.sum_exp(x.data(), n, largest),
          what + ": sum of exponentials");
  }
}

// Rotates and stores 300 rows, then attends with the last 5 of them as a chain.
std::vector<float> attend(CpuIsa isa, KvType type) {
  constexpr int kRows = 300, kQueries = 5, kHeads = 6, kKvHeads = 2, kDim = 64;
  Numbers numbers(5);
  const auto random = [&](int n) {
    std::vector<float> out(static_cast<std::size_t>(n));
    for (float& value : out) value = numbers.uniform();
    return out;
  };
  std::vector<float> q = random(kRows * kHeads * kDim);
  const std::vector<float> k = random(kRows * kKvHeads * kDim);
  const std::vector<float> v = random(kRows * kKvHeads * kDim);
  const std::vector<float> cos_sin = random(kRows * kDim);
  RopeStoreTask store;
  store.cache.layout = {.type = type, .n_kv_heads = kKvHeads, .head_dim = kDim};
  AlignedBuffer page0(store.cache.layout.layer_bytes());
  AlignedBuffer page1(store.cache.layout.layer_bytes());
  std::byte* const pages[] = {page0.data(), page1.data()};
  for (std::byte* page : pages) std::memset(page, 0, store.cache.layout.layer_bytes());
  store.cache.pages = pages;
  store.n_rows = kRows;
  store.n_heads = kHeads;
  store.n_kv_heads = kKvHeads;
  store.head_dim = kDim;
  store.n_rot = kDim;
  store.cos_sin = cos_sin.data();
  store.q = q.data();
  store.k = k.data();
  store.v = v.data();
  store.q_stride = kHeads * kDim;
  store.k_stride = store.v_stride = kKvHeads * kDim;
  const auto backend = make_cpu_backend(2, isa);
  backend->rope_store(store);
  std::vector<float> out(kQueries * kHeads * kDim);
  AttentionTask task;
  task.n_rows = kQueries;
  task.n_heads = kHeads;
  task.n_kv_heads = kKvHeads;
  task.head_dim = kDim;
  task.scale = 0.125F;
  task.q = q.data() + (kRows - kQueries) * kHeads * kDim;
  task.out = out.data();
  task.q_stride = task.out_stride = kHeads * kDim;
  task.cache = store.cache;
  task.first_slot = kRows - kQueries;
  backend->attention(task);
  return out;
}

void test_attention(CpuIsa isa) {
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kQ8_0}) {
    check(same_bits(attend(CpuIsa::kScalar, type), attend(isa, type)),
          std::string(cpu_isa_name(isa)) + " attention, cache type " +
              std::to_string(static_cast<int>(type)));
  }
}

int run() {
  for (const CpuIsa isa : supported_cpu_isas()) {
    std::printf("%s\n", cpu_isa_name(isa));
    if (isa == CpuIsa::kScalar) continue;
    // Else another set would be tested in its place.
    check(working_cpu_isa(isa) == isa, std::string(cpu_isa_name(isa)) + " gives its own products");
    for (const DTypeTraits& format : all_dtypes()) {
      test_matmul(isa, format, 33, 512);
      if (format.block_elements <= 32) test_matmul(isa, format, 16, 96);
    }
    test_ops(isa);
    test_attention(isa);
  }
  std::printf("%d checks, %d failed\n", n_checks, n_failures);
  return n_failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace specdec

int main() {
  try {
    return specdec::run();
  } catch (const specdec::Error& error) {
    std::printf("error: %s\n", error.what());
    return 2;
  }
}
