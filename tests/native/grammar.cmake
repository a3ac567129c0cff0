specdec_test_module(grammar SOURCES "${CMAKE_CURRENT_LIST_DIR}/grammar.cc" DEPENDS grammar)
