// exp over whole rows of logits, with the bits of fixed_exp on every instruction set.
#pragma once

#include <cstddef>

namespace specdec {

// out[i] = exp(in[i] - shift)
void exp_row(const double* in, double shift, double* out, std::size_t n);

}  // namespace specdec
