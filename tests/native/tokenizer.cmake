specdec_test_module(tokenizer SOURCES "${CMAKE_CURRENT_LIST_DIR}/tokenizer.cc" DEPENDS tokenizer)
