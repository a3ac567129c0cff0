specdec_test_module(model SOURCES "${CMAKE_CURRENT_LIST_DIR}/model.cc" DEPENDS model emulated_device)
