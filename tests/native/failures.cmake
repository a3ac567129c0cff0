specdec_test_module(failures SOURCES "${CMAKE_CURRENT_LIST_DIR}/failures.cc" DEPENDS engine)
