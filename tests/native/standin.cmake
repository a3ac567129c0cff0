# Kernels for registers that this machine may lack, for tests of the CPU backend with them.
add_library(specdec_standin STATIC
  "${CMAKE_CURRENT_LIST_DIR}/standin.cc"
  "${CMAKE_CURRENT_LIST_DIR}/standin_avx512.cc"
  "${CMAKE_CURRENT_LIST_DIR}/standin_scalar.cc"
  "${CMAKE_CURRENT_LIST_DIR}/standin_trapped.cc")
target_link_libraries(specdec_standin PUBLIC specdec_backend)
if(NOT SPECDEC_ODR)
  target_compile_options(specdec_standin PRIVATE -O1)
endif()
