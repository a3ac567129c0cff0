#pragma once

#include <pybind11/pybind11.h>

void bind_sampling(pybind11::module_& m);
void bind_laws(pybind11::module_& m);
void bind_draft_memory(pybind11::module_& m);
void bind_drafting(pybind11::module_& m);
void bind_session(pybind11::module_& m);
