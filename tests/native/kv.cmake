specdec_test_module(kv SOURCES "${CMAKE_CURRENT_LIST_DIR}/kv.cc" DEPENDS kv)
