#include "quant/requantize.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"
#include "base/thread_pool.h"
#include "quant/codec.h"
#include "quant/q4_0/block.h"
#include "tensor/half.h"

namespace specdec {
namespace {

constexpr std::array kTypes = {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                               DType::kQ8_0};

// One block of 32 weights; part p holds elements 4 p .. 4 p + 3. GCC and Clang turn this into
// vector code of any ISA with the same results, as every lane is rounded by itself.
using Floats = float __attribute__((vector_size(16)));
constexpr int kParts = 8;

struct Block {
  Floats part[kParts];
};

// Codes at 1/scale, as floats in [-8, 7]: x / scale rounded to nearest.
inline Floats code_of(Floats x, float inverse) noexcept {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds to a whole number
  Floats q = (x * inverse + kRound) - kRound;
  q = q < -8.0F ? Floats{} - 8.0F : q;
  return q > 7.0F ? Floats{} + 7.0F : q;
}

struct Fit {
  float dot = 0;     // sum of x q
  float square = 0;  // sum of q q
};

inline float sum_of(Floats v) noexcept { return (v[0] + v[2]) + (v[1] + v[3]); }

inline Fit fit_of(const Block& x, float inverse) noexcept {
  Floats dot = {};
  Floats square = {};
  for (const Floats& part : x.part) {
    const Floats q = code_of(part, inverse);
    dot += part * q;
    square += q * q;
  }
  return {sum_of(dot), sum_of(square)};
}

// The value of largest magnitude, with its sign.
inline float extreme_of(const Block& x) noexcept {
  Floats low = x.part[0];
  Floats high = x.part[0];
  for (const Floats& part : x.part) {
    low = part < low ? part : low;
    high = part > high ? part : high;
  }
  const float least = std::min(std::min(low[0], low[1]), std::min(low[2], low[3]));
  const float most = std::max(std::max(high[0], high[1]), std::max(high[2], high[3]));
  return -least > most ? least : most;
}

}  // namespace

void quantize_q4_0_best(const float* src, void* dst, std::int64_t n) noexcept {
  // Codes of the value of largest magnitude, around the -8 that holds it exactly.
  constexpr float kExtremes[] = {-8.0F, -8.5F, -7.6F, -7.1F};
  auto* block = static_cast<BlockQ4_0*>(dst);
  for (std::int64_t i = 0; i < n / 32; ++i, ++block, src += 32) {
    Block x;
    std::memcpy(&x, src, sizeof x);
    const float extreme = extreme_of(x);
    float scale = 0;
    float best = 0;
    if (extreme != 0.0F) {
      for (const float code : kExtremes) {
        // The error is sum x^2 - dot^2 / square at the scale dot / square.
        const Fit fit = fit_of(x, code / extreme);
        if (fit.square > 0 && fit.dot * fit.dot > best * fit.square) {
          best = fit.dot * fit.dot / fit.square;
          scale = fit.dot / fit.square;
        }
      }
    }
    block->d = f32_to_f16(scale);
    const float stored = f16_to_f32(block->d);
    const float inverse = stored == 0.0F ? 0.0F : 1.0F / stored;
    for (int p = 0; p < kParts / 2; ++p) {
      const Floats low = code_of(x.part[p], inverse) + 8.0F;
      const Floats high = code_of(x.part[p + kParts / 2], inverse) + 8.0F;
      for (int l = 0; l < 4; ++l) {
        // NaN fails the comparison and becomes 0.
        const int a = low[l] > 0 ? static_cast<int>(low[l]) : 0;
        const int b = high[l] > 0 ? static_cast<int>(high[l]) : 0;
        block->qs[4 * p + l] = static_cast<std::uint8_t>(a | b << 4);
      }
    }
  }
}

std::span<const DType> requantize_types() { return kTypes; }

DType parse_requantize_type(const std::string& name) {
  std::string known;
  for (const DType dtype : kTypes) {
    std::string lower = dtype_traits(dtype).name;
    for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (lower == name) return dtype;
    known += " " + lower;
  }
  throw_invalid("requantize must be one of" + known + ", got '" + printable(name) + "'");
}

bool requantize_pays(DType from, std::int64_t n_in, DType to) {
  const DTypeTraits& a = dtype_traits(from);
  const DTypeTraits& b = dtype_traits(to);
  return n_in % b.block_elements == 0 && std::uint64_t{b.block_bytes} * a.block_elements <
                                             std::uint64_t{a.block_bytes} * b.block_elements;
}

std::vector<std::byte> requantize(DType from, std::span<const std::byte> data, std::int64_t n_rows,
                                  std::int64_t n_in, DType to, int n_threads) {
  const auto n = static_cast<std::uint64_t>(n_in);
  const std::uint64_t from_bytes = row_bytes(from, n);
  const std::uint64_t to_bytes = row_bytes(to, n);
  SPECDEC_CHECK(data.size() / from_bytes >= static_cast<std::uint64_t>(n_rows));
  const auto quantize = to == DType::kQ4_0 ? quantize_q4_0_best : codec(to).quantize;
  SPECDEC_CHECK(quantize != nullptr);
  std::vector<std::byte> out(static_cast<std::size_t>(n_rows) * to_bytes);
  std::vector<std::vector<float>> rows(static_cast<std::size_t>(n_threads), std::vector<float>(n));
  constexpr std::int64_t kRowsPerChunk = 16;
  ThreadPool::shared().run(n_threads, [&](TaskContext& context) {
    float* row = rows[static_cast<std::size_t>(context.thread())].data();
    for (std::int64_t first = context.next_chunk() * kRowsPerChunk; first < n_rows;
         first = context.next_chunk() * kRowsPerChunk) {
      for (std::int64_t r = first; r < std::min(n_rows, first + kRowsPerChunk); ++r) {
        codec(from).dequantize(data.data() + static_cast<std::uint64_t>(r) * from_bytes, row, n_in);
        quantize(row, out.data() + static_cast<std::uint64_t>(r) * to_bytes, n_in);
      }
    }
  });
  return out;
}

}  // namespace specdec
