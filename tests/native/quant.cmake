specdec_test_module(quant SOURCES "${CMAKE_CURRENT_LIST_DIR}/quant.cc" DEPENDS quant)
