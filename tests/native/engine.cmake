specdec_test_module(engine SOURCES "${CMAKE_CURRENT_LIST_DIR}/engine.cc" DEPENDS engine emulated_device)
