# What of the CUDA backend is plain C++: also built into the tests, over the grid emulator.
file(GLOB cuda_kernel_host CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/kernels/*.cc")
set(SPECDEC_CUDA_HOST_SOURCES "${CMAKE_CURRENT_LIST_DIR}/cuda_backend.cc"
                              "${CMAKE_CURRENT_LIST_DIR}/cuda_ops.cc"
                              "${CMAKE_CURRENT_LIST_DIR}/cuda_pass.cc"
                              "${CMAKE_CURRENT_LIST_DIR}/work_space.cc" ${cuda_kernel_host})
