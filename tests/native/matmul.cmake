specdec_test_module(matmul
  SOURCES "${CMAKE_CURRENT_LIST_DIR}/matmul.cc" "${CMAKE_CURRENT_LIST_DIR}/standin_avx512.cc"
          "${CMAKE_CURRENT_LIST_DIR}/standin_scalar.cc"
  DEPENDS backend)
