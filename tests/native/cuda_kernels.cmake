# The CUDA kernels on the emulator of the grid (emulated.cmake), which needs neither CUDA nor a GPU;
# in builds with CUDA also on a GPU.
specdec_test_module(cuda_kernels SOURCES "${CMAKE_CURRENT_LIST_DIR}/cuda_kernels.cc"
                            "${CMAKE_CURRENT_LIST_DIR}/cuda_experts.cc"
                    DEPENDS emulated_device)
