specdec_test_module(chat_template SOURCES "${CMAKE_CURRENT_LIST_DIR}/chat_template.cc"
                    DEPENDS chat_template)

# Fuzz replay, for a build with SPECDEC_SANITIZE=address,undefined:
#   specdec_fuzz_chat_template 100000 1 tests/data/chat_templates/*.jinja
add_executable(specdec_fuzz_chat_template EXCLUDE_FROM_ALL
               "${CMAKE_CURRENT_LIST_DIR}/fuzz_chat_template.cc")
target_link_libraries(specdec_fuzz_chat_template PRIVATE specdec_chat_template)
