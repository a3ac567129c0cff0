# The stream backend and what of the CUDA kernels is plain C++: also built into the tests, over the
# grid emulator.
file(GLOB cuda_kernel_host CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/kernels/*.cc")
file(GLOB stream_backend CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/../stream/*.cc")
set(SPECDEC_CUDA_HOST_SOURCES ${stream_backend} ${cuda_kernel_host})
