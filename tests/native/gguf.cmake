specdec_test_module(gguf SOURCES "${CMAKE_CURRENT_LIST_DIR}/gguf.cc" DEPENDS gguf)

# Fuzz replay, for a build with SPECDEC_SANITIZE=address,undefined:
#   python tests/gguf_malformed_cases.py corpus && specdec_fuzz_gguf 100000 1 corpus/*.gguf
add_executable(specdec_fuzz_gguf EXCLUDE_FROM_ALL "${CMAKE_CURRENT_LIST_DIR}/fuzz_gguf.cc")
target_link_libraries(specdec_fuzz_gguf PRIVATE specdec_gguf)
