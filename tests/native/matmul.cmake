specdec_test_module(matmul SOURCES "${CMAKE_CURRENT_LIST_DIR}/matmul.cc" DEPENDS standin backend)

# Not built by default: `cmake --build build --target bench_tiles`.
add_executable(bench_tiles EXCLUDE_FROM_ALL "${CMAKE_CURRENT_LIST_DIR}/bench_tiles.cc")
target_link_libraries(bench_tiles PRIVATE specdec_backend)
