# What tools/check_gpu.py measures with: kernels alone and models, on a GPU or the emulated device.
specdec_test_module(gpu_check SOURCES "${CMAKE_CURRENT_LIST_DIR}/gpu_check.cc"
                    "${CMAKE_CURRENT_LIST_DIR}/kernel_timer.cc" DEPENDS engine emulated_device)
