# The CUDA backend over the grid emulator, for tests of everything around the kernels.
include("${PROJECT_SOURCE_DIR}/cpp/backend/cuda/host.cmake")
set(probe "${CMAKE_CURRENT_LIST_DIR}/no_cuda_probe.cc")
if(SPECDEC_CUDA)
  set(SPECDEC_CUDA_HOST_SOURCES "")  # in the backend already
  set(probe "${CMAKE_CURRENT_LIST_DIR}/cuda_probe.cu")
endif()
add_library(specdec_emulated_device STATIC
  "${CMAKE_CURRENT_LIST_DIR}/emulated_device.cc"
  "${CMAKE_CURRENT_LIST_DIR}/cuda_emulator.cc"
  "${CMAKE_CURRENT_LIST_DIR}/cuda_emulated_kernels.cc"
  "${CMAKE_CURRENT_LIST_DIR}/cuda_emulated_attention.cc"
  "${CMAKE_CURRENT_LIST_DIR}/cuda_emulated_floats.cc"
  "${CMAKE_CURRENT_LIST_DIR}/cuda_emulated_q32.cc"
  "${CMAKE_CURRENT_LIST_DIR}/cuda_emulated_q256.cc"
  "${CMAKE_CURRENT_LIST_DIR}/kernel_device.cc"
  ${probe}
  ${SPECDEC_CUDA_HOST_SOURCES})
target_link_libraries(specdec_emulated_device PUBLIC specdec_backend)
