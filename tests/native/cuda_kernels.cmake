# The CUDA kernels on the emulator of the grid: needs neither CUDA nor a GPU.
set(kernels "${PROJECT_SOURCE_DIR}/cpp/backend/cuda/kernels")
specdec_test_module(cuda_kernels
  SOURCES
    "${CMAKE_CURRENT_LIST_DIR}/cuda_kernels.cc"
    "${CMAKE_CURRENT_LIST_DIR}/cuda_emulator.cc"
    "${CMAKE_CURRENT_LIST_DIR}/cuda_emulated_kernels.cc"
    "${kernels}/layout.cc" "${kernels}/pack.cc" "${kernels}/scratch.cc"
  DEPENDS backend)
