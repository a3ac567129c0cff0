specdec_test_module(matmul SOURCES "${CMAKE_CURRENT_LIST_DIR}/matmul.cc" DEPENDS standin backend)
