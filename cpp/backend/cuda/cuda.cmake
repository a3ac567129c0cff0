# Sources of the CUDA backend. CUDA is enabled in the top-level file; nvcc compiles only the .cu files.
include("${CMAKE_CURRENT_LIST_DIR}/host.cmake")
file(GLOB cuda_kernels CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/kernels/*.cu")
set(SPECDEC_DEVICE_SOURCES ${SPECDEC_CUDA_HOST_SOURCES} ${cuda_kernels}
                           "${CMAKE_CURRENT_LIST_DIR}/cuda_runtime.cu")
