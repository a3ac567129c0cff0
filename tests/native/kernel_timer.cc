#include "kernel_timer.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "cuda_emulator.h"
#include "emulated_device.h"

namespace specdec::testing {

using cuda::PackedWeight;

namespace {

constexpr std::size_t kSeedBytes = std::size_t{1} << 20;

std::vector<float> random_floats(std::size_t n) {
  std::vector<float> out(n);
  std::uint64_t state = 1;
  for (float& x : out) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    x = static_cast<float>(static_cast<double>(state >> 40) / (1 << 23) - 1.0);
  }
  return out;
}

}  // namespace

// Memory of the device.
class KernelTimer::Block {
 public:
  Block(stream::Runtime& runtime, std::size_t n_bytes)
      : runtime_(runtime), n_bytes_(n_bytes), data_(runtime.allocate(n_bytes)) {}
  template <class T>
  Block(stream::Runtime& runtime, const std::vector<T>& content)
      : Block(runtime, content.size() * sizeof(T)) {
    runtime.upload(data_, content.data(), n_bytes_);
    runtime.synchronize("an upload");
  }
  ~Block() { runtime_.free(data_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return n_bytes_; }
  template <class T>
  [[nodiscard]] T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  stream::Runtime& runtime_;
  std::size_t n_bytes_;
  std::byte* data_;
};

// Rows of x, packed for some types.
class KernelTimer::Input {
 public:
  Input(KernelTimer& timer, const std::vector<DType>& dtypes, std::int64_t n_in, int n_rows,
        bool norm)
      : x_(*timer.device_.runtime,
           random_floats(static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(n_in))),
        weight_(*timer.device_.runtime, random_floats(static_cast<std::size_t>(n_in))) {
    args_.x = x_.as<float>();
    args_.x_stride = args_.n_in = n_in;
    args_.n_rows = n_rows;
    if (norm) {
      args_.norm = {.kind = Norm::Kind::kRms,
                    .weight = weight_.as<float>(),
                    .bias = nullptr,
                    .epsilon = 1e-5F};
    }
    for (const DType dtype : dtypes) {
      const auto kind = static_cast<std::size_t>(cuda::input_kind(dtype));
      if (forms_[kind] != nullptr) continue;
      forms_[kind] = std::make_unique<Block>(
          *timer.device_.runtime, cuda::input_bytes(cuda::input_kind(dtype), n_rows, n_in));
      args_.out.data[kind] = forms_[kind]->data();
    }
    timer.launch(timer.device_.kernels->pack_input, args_);
  }
  [[nodiscard]] const cuda::PackInputArgs& args() const { return args_; }
  [[nodiscard]] const cuda::PackedInput& packed() const { return args_.out; }

 private:
  Block x_, weight_;
  std::unique_ptr<Block> forms_[kInputKinds];
  cuda::PackInputArgs args_;
};

// Pages of the pool for n_layers.
class KernelTimer::Cache {
 public:
  Cache(const KernelTimer& timer, const CacheShape& shape, int n_rows)
      : layout_{.type = shape.type, .n_kv_heads = shape.n_kv_heads, .head_dim = shape.head_dim} {
    const std::size_t page_bytes = layout_.layer_bytes() * static_cast<std::size_t>(shape.n_layers);
    const int n_pages = (shape.n_positions + n_rows + kKvChunk - 1) / kKvChunk;
    timer.require_pool(page_bytes * static_cast<std::size_t>(n_pages));
    std::vector<std::byte*> pages;
    for (int i = 0; i < n_pages; ++i)
      pages.push_back(timer.pool_->data() + page_bytes * static_cast<std::size_t>(i));
    pages_ = std::make_unique<Block>(*timer.device_.runtime, pages);
    slot_ = std::make_unique<Block>(*timer.device_.runtime,
                                    std::vector<std::int32_t>{shape.n_positions});
  }
  [[nodiscard]] const KvLayout& layout() const { return layout_; }
  [[nodiscard]] std::byte* const* pages() const { return pages_->as<std::byte*>(); }
  [[nodiscard]] const std::int32_t* slot() const { return slot_->as<std::int32_t>(); }

 private:
  KvLayout layout_;
  std::unique_ptr<Block> pages_, slot_;
};

KernelTimer::KernelTimer(const std::string& device, std::size_t pool_bytes) {
  if (device == "cuda") {
    device_ = cuda::open_cuda_device(0);
  } else if (device == "emulated") {
    device_ = {make_emulated_runtime(4 * pool_bytes + (std::size_t{64} << 20)),
               &cuda::emulated_kernels()};
  } else {
    throw_invalid("device is '" + device + "'; expected cuda or emulated");
  }
  // Bit 14 of every two bytes is clear: no exponent of F16, BF16 or F32 is the largest.
  std::vector<std::uint64_t> seed(kSeedBytes / sizeof(std::uint64_t));
  for (std::size_t i = 0; i < seed.size(); ++i)
    seed[i] = random_bits(1, RngStream::kShuffle, i, 0) & 0xBFFFBFFFBFFFBFFFULL;
  pool_bytes = std::max(pool_bytes, kSeedBytes);
  pool_ = std::make_unique<Block>(*device_.runtime, pool_bytes);
  device_.runtime->upload(pool_->data(), seed.data(), kSeedBytes);
  for (std::size_t done = kSeedBytes; done < pool_bytes; done *= 2)
    device_.runtime->copy(pool_->data() + done, pool_->data(), std::min(done, pool_bytes - done));
  device_.runtime->synchronize("filling memory");
}

KernelTimer::~KernelTimer() = default;

void KernelTimer::require_pool(std::size_t n_bytes) const {
  if (n_bytes <= pool_->size()) return;
  throw Error(ErrorCode::kResource, "needs " + std::to_string(n_bytes >> 20) +
                                        " MiB, and the pool has " +
                                        std::to_string(pool_->size() >> 20) + " MiB");
}

PackedWeight KernelTimer::weight(const MatrixShape& shape, int which) const {
  const std::size_t n_bytes = cuda::packed_bytes(shape.dtype, shape.n_out, shape.n_in);
  return {.dtype = shape.dtype,
          .n_out = shape.n_out,
          .n_in = shape.n_in,
          .data = pool_->data() + n_bytes * static_cast<std::size_t>(which)};
}

TimedLaunches KernelTimer::time(const Repeats& repeats, const Issue& issue) {
  using Clock = std::chrono::steady_clock;
  stream::Runtime& runtime = *device_.runtime;
  issue(0);  // loads the kernels
  runtime.synchronize("a first launch");
  runtime.begin_recording();
  std::unique_ptr<cuda::Recording> recording;
  try {
    for (int i = 0; i < repeats.n_launches; ++i) issue(i);
    recording = runtime.end_recording();
  } catch (...) {
    runtime.abandon_recording();
    throw;
  }
  TimedLaunches out;
  for (int repeat = -1; repeat < repeats.n_repeats; ++repeat) {
    const auto start = Clock::now();
    runtime.mark_begin();
    runtime.play(*recording);
    runtime.mark_end();
    runtime.synchronize("measured launches");
    const std::chrono::duration<double, std::milli> host = Clock::now() - start;
    if (repeat < 0) continue;  // the first one brings the recording to the device
    const double device_ms = runtime.marked_ms();
    if (device_ms <= 0) out.device_clock = false;
    out.ms.push_back((device_ms > 0 ? device_ms : host.count()) / repeats.n_launches);
  }
  return out;
}

TimedLaunches KernelTimer::copy(std::size_t n_bytes, const Repeats& repeats) {
  require_pool(2 * n_bytes);
  return time(repeats,
              [&](int) { device_.runtime->copy(pool_->data() + n_bytes, pool_->data(), n_bytes); });
}

TimedLaunches KernelTimer::nothing(const Repeats& repeats) {
  // Token 0 with no source: a number is read and nothing is written.
  const Block numbers(*device_.runtime, std::vector<float>{0, std::bit_cast<float>(-1), 0, 0});
  const cuda::TakeTokensArgs args{.tokens = numbers.as<std::int32_t>(),
                                  .n_rows = 1,
                                  .picks = numbers.as<std::int32_t>() + 1,
                                  .found = numbers.as<TopToken>() + 1};
  return time(repeats, [&](int) { launch(device_.kernels->take_tokens, args); });
}

TimedLaunches KernelTimer::pack_input(const std::vector<DType>& dtypes, std::int64_t n_in,
                                      int n_rows, bool norm, const Repeats& repeats) {
  const Input input(*this, dtypes, n_in, n_rows, norm);
  return time(repeats, [&](int) { launch(device_.kernels->pack_input, input.args()); });
}

TimedLaunches KernelTimer::linear(const MatrixShape& shape, int n_rows, bool use_dp4a,
                                  const Repeats& repeats) {
  require_pool(cuda::packed_bytes(shape.dtype, shape.n_out, shape.n_in) *
               static_cast<std::size_t>(shape.n_copies));
  const Input input(*this, {shape.dtype}, shape.n_in, n_rows, false);
  const Block dst(*device_.runtime, static_cast<std::size_t>(n_rows) *
                                        static_cast<std::size_t>(shape.n_out) * sizeof(float));
  cuda::LinearArgs args;
  args.input = input.packed();
  args.n_rows = n_rows;
  args.n_segments = 1;
  args.segments[0].dst = dst.as<float>();
  args.segments[0].dst_stride = shape.n_out;
  args.use_dp4a = use_dp4a;
  return time(repeats, [&](int i) {
    args.segments[0].weight = weight(shape, i % shape.n_copies);
    launch(device_.kernels->linear, args);
  });
}

TimedLaunches KernelTimer::gated(const MatrixShape& shape, int n_rows, const Repeats& repeats) {
  require_pool(2 * cuda::packed_bytes(shape.dtype, shape.n_out, shape.n_in) *
               static_cast<std::size_t>(shape.n_copies));
  const Input input(*this, {shape.dtype}, shape.n_in, n_rows, false);
  const Block dst(*device_.runtime, static_cast<std::size_t>(n_rows) *
                                        static_cast<std::size_t>(shape.n_out) * sizeof(float));
  cuda::GatedArgs args;
  args.input = input.packed();
  args.n_rows = n_rows;
  args.dst = dst.as<float>();
  args.dst_stride = shape.n_out;
  return time(repeats, [&](int i) {
    args.gate = weight(shape, i % shape.n_copies * 2);
    args.up = weight(shape, i % shape.n_copies * 2 + 1);
    launch(device_.kernels->gated_linear, args);
  });
}

TimedLaunches KernelTimer::head(const MatrixShape& shape, int n_rows, int top_k,
                                const Repeats& repeats) {
  require_pool(cuda::packed_bytes(shape.dtype, shape.n_out, shape.n_in) *
               static_cast<std::size_t>(shape.n_copies));
  const Input input(*this, {shape.dtype}, shape.n_in, n_rows, false);
  const auto rows = static_cast<std::size_t>(n_rows);
  const Block top(*device_.runtime, rows * static_cast<std::size_t>(top_k) * sizeof(TopToken));
  const Block sums(*device_.runtime, rows * sizeof(float));
  const Block scratch(*device_.runtime, cuda::head_scratch_bytes(n_rows, shape.n_out, 0, top_k));
  cuda::HeadArgs args;
  args.input = input.packed();
  args.n_rows = n_rows;
  args.n_tokens = shape.n_out;
  args.top_k = top_k;
  args.top = top.as<TopToken>();
  args.log_sum_exp = sums.as<float>();
  args.scratch = scratch.data();
  return time(repeats, [&](int i) {
    args.weight = weight(shape, i % shape.n_copies);
    launch(device_.kernels->head, args);
  });
}

TimedLaunches KernelTimer::rope_store(const CacheShape& shape, int n_rows, const Repeats& repeats) {
  const Cache cache(*this, shape, n_rows);
  const int width = shape.n_heads + 2 * shape.n_kv_heads;
  const Block qkv(*device_.runtime,
                  random_floats(static_cast<std::size_t>(n_rows) *
                                static_cast<std::size_t>(width * shape.head_dim)));
  std::vector<float> angles(static_cast<std::size_t>(n_rows * shape.head_dim), 0.6F);
  const Block table(*device_.runtime, angles);
  cuda::RopeStoreArgs args;
  args.n_rows = n_rows;
  args.n_heads = shape.n_heads;
  args.n_kv_heads = shape.n_kv_heads;
  args.head_dim = args.n_rot = shape.head_dim;
  args.cos_sin = table.as<float>();
  args.q = qkv.as<float>();
  args.k = args.q + shape.n_heads * shape.head_dim;
  args.v = args.k + shape.n_kv_heads * shape.head_dim;
  args.q_stride = args.k_stride = args.v_stride = std::int64_t{width} * shape.head_dim;
  args.layout = cache.layout();
  args.pages = cache.pages();
  args.first_slot = cache.slot();
  return time(repeats, [&](int i) {
    args.page_offset = cache.layout().layer_bytes() * static_cast<std::size_t>(i % shape.n_layers);
    launch(device_.kernels->rope_store, args);
  });
}

TimedLaunches KernelTimer::attention(const CacheShape& shape, int n_rows, bool tree,
                                     const Repeats& repeats) {
  const Cache cache(*this, shape, n_rows);
  const std::size_t n =
      static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(shape.n_heads * shape.head_dim);
  const Block q(*device_.runtime, random_floats(n));
  const Block out(*device_.runtime, n * sizeof(float));
  std::vector<std::int32_t> parents;
  for (int i = 0; i < n_rows; ++i) parents.push_back(i == 0 ? -1 : (i - 1) / 2);
  const Block d_parents(*device_.runtime, parents);
  cuda::AttentionArgs args;
  args.n_rows = n_rows;
  args.n_heads = shape.n_heads;
  args.n_kv_heads = shape.n_kv_heads;
  args.head_dim = shape.head_dim;
  args.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.head_dim)));
  args.q = q.as<float>();
  args.out = out.as<float>();
  args.q_stride = args.out_stride = std::int64_t{shape.n_heads} * shape.head_dim;
  args.layout = cache.layout();
  args.pages = cache.pages();
  args.first_slot = cache.slot();
  args.parents = tree ? d_parents.as<std::int32_t>() : nullptr;
  args.max_chunks = (shape.n_positions + n_rows + kKvChunk - 1) / kKvChunk;
  const Block scratch(
      *device_.runtime,
      std::max<std::size_t>(1, cuda::attention_scratch_bytes(n_rows, shape.n_heads, shape.head_dim,
                                                             args.max_chunks)));
  args.scratch = scratch.data();
  const Block counters(*device_.runtime, std::vector<std::int32_t>(static_cast<std::size_t>(
                                             shape.n_heads * cuda::kAttentionCounters)));
  args.counters = counters.as<std::int32_t>();
  return time(repeats, [&](int i) {
    args.page_offset = cache.layout().layer_bytes() * static_cast<std::size_t>(i % shape.n_layers);
    launch(device_.kernels->attention, args);
  });
}

}  // namespace specdec::testing
