specdec_test_module(ops SOURCES "${CMAKE_CURRENT_LIST_DIR}/ops.cc" DEPENDS backend)

# Times attention; built on request only.
add_executable(bench_attention EXCLUDE_FROM_ALL "${CMAKE_CURRENT_LIST_DIR}/bench_attention.cc")
target_link_libraries(bench_attention PRIVATE specdec_backend)
