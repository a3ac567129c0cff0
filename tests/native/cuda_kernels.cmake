# The CUDA kernels on the emulator of the grid (emulated.cmake): needs neither CUDA nor a GPU.
specdec_test_module(cuda_kernels SOURCES "${CMAKE_CURRENT_LIST_DIR}/cuda_kernels.cc"
                    DEPENDS emulated_device)
