// Clock cycles that 4096 weights in cache take with some numbers of columns: the second fastest and
// the median of 60 turns, in which instruction sets follow each other. The clock is measured beside
// each turn by multiplications that wait for one another (3 cycles on x86 since 2008).
//   bench_tiles [isa,isa... [FORMAT,FORMAT... [columns,columns... [n_in]]]]
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "backend/cpu/matmul.h"
#include "backend/cpu/packed_inputs.h"
#include "backend/cpu/tiles/tile_format.h"
#include "base/aligned_buffer.h"
#include "base/cpu_isa.h"

namespace {

using namespace specdec;

constexpr int kTurns = 60;
constexpr int kRepeats = 8;
constexpr std::int64_t kCacheBytes = 128 << 10;  // of weights

double now_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

double ns_per_cycle() {
  constexpr int kSteps = 2000;
  const double begin = now_ns();
  std::uint64_t x = 3;
  for (int i = 0; i < kSteps; ++i) {
    x *= x;
    asm volatile("" : "+r"(x));
  }
  return (now_ns() - begin) / (3.0 * kSteps);
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> out;
  std::stringstream in(text);
  for (std::string part; std::getline(in, part, ',');) out.push_back(part);
  return out;
}

const DTypeTraits& format_of(const std::string& name) {
  for (const DTypeTraits& traits : all_dtypes()) {
    if (traits.name == name && traits.block_elements > 1) return traits;
  }
  std::fprintf(stderr, "no format of blocks: %s\n", name.c_str());
  std::exit(2);
}

// Tile rows of one format, and inputs for one instruction set.
class Case {
 public:
  Case(const MatmulKernels& kernels, const DTypeTraits& traits, int n_cols, std::int64_t n_in)
      : kernels_(kernels),
        dtype_(traits.dtype),
        kind_(traits.block_elements == 32 ? InputKind::kQ32 : InputKind::kQ256),
        n_in_(n_in),
        row_bytes_(tile_format(dtype_).tile_bytes *
                   static_cast<std::size_t>(n_in / tile_format(dtype_).unit)),
        n_rows_(std::max<std::int64_t>(1, kCacheBytes / static_cast<std::int64_t>(row_bytes_))),
        tiles_(row_bytes_ * static_cast<std::size_t>(n_rows_)),
        inputs_(kernels, n_cols, n_in) {
    // As halves finite numbers, as codes anything.
    for (std::size_t i = 0; i < tiles_.size(); ++i)
      tiles_.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(i * 37 & 0x2F);
    inputs_.want(kind_, dtype_);
    inputs_.allocate(memory_);
    std::vector<float> x(static_cast<std::size_t>(n_in));
    for (int c = 0; c < n_cols; ++c) {
      for (std::size_t i = 0; i < x.size(); ++i)
        x[i] = static_cast<float>((i * 7 + static_cast<std::size_t>(c)) % 255) - 127.0F;
      inputs_.fill(c, x.data());
    }
  }

  double cycles() const {
    const double before = ns_per_cycle();
    run();
    const double begin = now_ns();
    for (int i = 0; i < kRepeats; ++i) run();
    const double ns = (now_ns() - begin) / kRepeats;
    const double weights = static_cast<double>(n_rows_ * kTileRows * n_in_);
    return ns / std::min(before, ns_per_cycle()) / weights * 4096;
  }

 private:
  void run() const {
    const KernelLease lease(kernels_);
    alignas(64) float out[kMaxWideColumns * kTileRows];
    for (std::int64_t row = 0; row < n_rows_; ++row) {
      const std::uint8_t* tiles =
          tiles_.as<const std::uint8_t>() + row_bytes_ * static_cast<std::size_t>(row);
      for (int g = 0; g < inputs_.split().n_groups(); ++g) {
        const PackedInput& input = inputs_.view(kind_, g);
        kernels_.tile(kind_, dtype_, input)(tiles, input, out);
      }
    }
  }

  const MatmulKernels& kernels_;
  DType dtype_;
  InputKind kind_;
  std::int64_t n_in_;
  std::size_t row_bytes_;
  std::int64_t n_rows_;
  AlignedBuffer tiles_;
  AlignedBuffer memory_;
  PackedInputs inputs_;
};

}  // namespace

int main(int argc, char** argv) {
  std::string all;
  for (const CpuIsa isa : supported_cpu_isas())
    all += (all.empty() ? "" : ",") + std::string(cpu_isa_name(isa));
  const auto isas = split(argc > 1 ? argv[1] : all);
  const auto formats = split(argc > 2 ? argv[2] : "Q4_K,Q5_K,Q6_K,Q3_K,Q2_K,Q4_0,Q4_1,Q5_0,Q8_0");
  const auto columns = split(argc > 3 ? argv[3] : "1,2,4,6,8,12,16,24,32,48,64");
  const std::int64_t n_in = argc > 4 ? std::atol(argv[4]) : 1536;
  std::printf("cycles for 4096 weights, n_in %ld, %.2f GHz\n%-20s", static_cast<long>(n_in),
              1 / ns_per_cycle(), "");
  for (const std::string& n : columns) std::printf(" %11s", n.c_str());
  std::printf("\n");
  for (const std::string& format : formats) {
    std::vector<std::string> lines;
    for (const std::string& isa : isas) lines.push_back(format + " " + isa);
    for (const std::string& n : columns) {
      std::vector<Case> cases;
      for (const std::string& isa : isas)
        cases.emplace_back(matmul_kernels(parse_cpu_isa(isa)), format_of(format),
                           std::atoi(n.c_str()), n_in);
      std::vector<std::vector<double>> times(isas.size());
      for (int turn = 0; turn < kTurns; ++turn)
        for (std::size_t i = 0; i < cases.size(); ++i) times[i].push_back(cases[i].cycles());
      for (std::size_t i = 0; i < cases.size(); ++i) {
        std::sort(times[i].begin(), times[i].end());
        char text[32];
        std::snprintf(text, sizeof text, " %5.0f %5.0f", times[i][1], times[i][kTurns / 2]);
        lines[i].resize(std::max<std::size_t>(lines[i].size(), 20), ' ');
        lines[i] += text;
      }
    }
    for (const std::string& line : lines) std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  }
  return 0;
}
