specdec_test_module(base SOURCES "${CMAKE_CURRENT_LIST_DIR}/base.cc" DEPENDS base)
