#pragma once

#include <pybind11/pybind11.h>

namespace specdec::testing {

void bind_experts(pybind11::module_& m);

}  // namespace specdec::testing
