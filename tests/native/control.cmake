specdec_test_module(control SOURCES "${CMAKE_CURRENT_LIST_DIR}/control.cc" DEPENDS decode)
