// Microseconds of one attention operation for the shapes of real models: the fastest of many,
// because neighbours on the machine only ever slow it down.
//   bench_attention [n_threads [isa]]
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "backend/cpu/ops.h"
#include "base/aligned_buffer.h"
#include "base/rng.h"
#include "tensor/half.h"

namespace {

using namespace specdec;

struct Shape {
  const char* name;
  int n_heads, n_kv_heads, head_dim, n_layers;
};

double now_us(int n_threads) {
  timespec t{};
  clock_gettime(n_threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) * 1e-3;
}

double best_us(const OpsKernels& ops, const Shape& shape, KvType type, int context, int n_rows,
               bool tree, int n_threads) {
  const KvLayout layout{.type = type, .n_kv_heads = shape.n_kv_heads, .head_dim = shape.head_dim};
  const int n_slots = context + n_rows;
  const std::size_t n_pages = static_cast<std::size_t>((n_slots + kKvChunk - 1) / kKvChunk);
  // Pages hold all layers, and layers are cycled through, as in a model.
  const auto n_layers = static_cast<std::size_t>(shape.n_layers);
  std::vector<AlignedBuffer> buffers;
  std::vector<std::vector<std::byte*>> pages(n_layers);
  for (std::size_t i = 0; i < n_pages; ++i) {
    buffers.emplace_back(layout.layer_bytes() * n_layers);
    std::memset(buffers.back().data(), 0x11, buffers.back().size());
    for (std::size_t l = 0; l < n_layers; ++l) {
      pages[l].push_back(buffers.back().data() + l * layout.layer_bytes());
    }
  }
  const std::size_t row =
      static_cast<std::size_t>(shape.n_heads) * static_cast<std::size_t>(shape.head_dim);
  std::vector<float> q(row * static_cast<std::size_t>(n_rows), 0.01F);
  std::vector<float> out(q.size());
  std::vector<std::int32_t> parents;  // two branches
  for (int r = 0; r < n_rows; ++r) parents.push_back(r < 2 ? -1 : r - 2);
  AttentionTask task;
  task.n_rows = n_rows;
  task.n_heads = shape.n_heads;
  task.n_kv_heads = shape.n_kv_heads;
  task.head_dim = shape.head_dim;
  task.scale = 0.1F;
  task.q = q.data();
  task.out = out.data();
  task.q_stride = task.out_stride = static_cast<std::int64_t>(row);
  task.cache.layout = layout;
  task.first_slot = context;
  task.parents = tree ? parents.data() : nullptr;
  AlignedBuffer scratch(attention_scratch_bytes(task, n_threads));
  const int n_repeats = n_rows > 64 ? 16 : 160;
  std::vector<double> times;
  for (int i = 0; i < n_repeats; ++i) {
    task.cache.pages = pages[static_cast<std::size_t>(i % shape.n_layers)].data();
    const double begin = now_us(n_threads);
    ThreadPool::shared().run(n_threads,
                             [&](TaskContext& c) { ops.attention(task, scratch.data(), c); });
    times.push_back(now_us(n_threads) - begin);
  }
  return *std::min_element(times.begin(), times.end());
}

}  // namespace

int main(int argc, char** argv) {
  const int n_threads = argc > 1 ? std::atoi(argv[1]) : ThreadPool::default_n_threads();
  const CpuIsa isa = argc > 2 ? parse_cpu_isa(argv[2]) : active_cpu_isa();
  const OpsKernels& ops = ops_kernels(isa);
  const Shape shapes[] = {{"1.5B 12/2/128", 12, 2, 128, 28},
                          {"0.5B 14/2/64", 14, 2, 64, 24},
                          {"135M 9/3/64", 9, 3, 64, 30}};
  const std::pair<const char*, KvType> types[] = {
      {"f16", KvType::kF16}, {"q8_0", KvType::kQ8_0}, {"f32", KvType::kF32}};
  std::printf("%s, %d threads, microseconds\n%-14s %-5s %5s %9s %9s %9s %9s %9s %9s %9s\n",
              cpu_isa_name(isa), n_threads, "shape", "type", "ctx", "M=1", "M=2", "M=4", "M=8",
              "M=16", "tree 16", "M=512");
  for (const Shape& shape : shapes) {
    for (const auto& [name, type] : types) {
      for (const int context : {256, 4096}) {
        std::printf("%-14s %-5s %5d", shape.name, name, context);
        for (const int n_rows : {1, 2, 4, 8, 16}) {
          std::printf(" %9.1f", best_us(ops, shape, type, context, n_rows, false, n_threads));
        }
        std::printf(" %9.1f", best_us(ops, shape, type, context, 16, true, n_threads));
        std::printf(" %9.1f\n", best_us(ops, shape, type, context - 256, 512, false, n_threads));
        std::fflush(stdout);
      }
    }
  }
  return 0;
}
