#include "sampling/exp_rows.h"

#include "base/cpu_isa.h"
#include "sampling/fixed_math.h"

namespace specdec {
namespace {

using ExpRow = void (*)(const double*, double, double*, std::size_t);

template <std::size_t kLanes>
[[gnu::always_inline]] inline void exp_loop(const double* in, double shift, double* out,
                                            std::size_t n) {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) fixed_exp_lanes<kLanes>(in + i, shift, out + i);
  for (; i < n; ++i) out[i] = fixed_exp(in[i] - shift);
}

}  // namespace

// Compiled for wide vectors too. No version fuses multiplications and additions, so all give the
// same bits.
namespace scalar {
static void exp_row(const double* in, double shift, double* out, std::size_t n) {
  exp_loop<2>(in, shift, out, n);
}
}  // namespace scalar
#if defined(__x86_64__)
namespace avx2 {
[[gnu::target("avx2")]] static void exp_row(const double* in, double shift, double* out,
                                            std::size_t n) {
  exp_loop<4>(in, shift, out, n);
}
}  // namespace avx2
namespace avx512 {
[[gnu::target("avx512f,avx512dq")]] static void exp_row(const double* in, double shift, double* out,
                                                        std::size_t n) {
  exp_loop<8>(in, shift, out, n);
}
}  // namespace avx512
#endif

namespace {

ExpRow best_exp_row() {
#if defined(__x86_64__)
  switch (active_cpu_isa()) {
    case CpuIsa::kAvx2:
    case CpuIsa::kAvxVnni:
    case CpuIsa::kAvxVnniInt8:
      return avx2::exp_row;
    case CpuIsa::kAvx512Vnni:
    case CpuIsa::kAmxInt8:
      return avx512::exp_row;
    default:
      break;
  }
#endif
  return scalar::exp_row;
}

}  // namespace

void exp_row(const double* in, double shift, double* out, std::size_t n) {
  static const ExpRow kBest = best_exp_row();
  kBest(in, shift, out, n);
}

}  // namespace specdec
