specdec_test_module(experts SOURCES "${CMAKE_CURRENT_LIST_DIR}/experts.cc"
  DEPENDS standin backend)
