specdec_test_module(chat_template SOURCES "${CMAKE_CURRENT_LIST_DIR}/chat_template.cc"
                    DEPENDS chat_template)
