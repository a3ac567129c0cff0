# For `cmake -DCMAKE_PROJECT_INCLUDE`: builds the kernels once, from few and large units. Kernels stay
# files of their own, and the many small files of quant/, which have names in common, share headers.
set(CMAKE_UNITY_BUILD ON)
set(CMAKE_UNITY_BUILD_BATCH_SIZE 40)
function(specdec_quick_build)
  get_target_property(sources specdec_backend SOURCES)
  list(FILTER sources INCLUDE REGEX "^${PROJECT_BINARY_DIR}")
  set_source_files_properties(${sources} TARGET_DIRECTORY specdec_backend
                              PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  set_target_properties(specdec_quant PROPERTIES UNITY_BUILD OFF)
  set(cpp "${PROJECT_SOURCE_DIR}/cpp")
  target_precompile_headers(specdec_quant PRIVATE
    <cmath> <vector> "${cpp}/quant/codec.h" "${cpp}/quant/encode.h" "${cpp}/quant/blocks.h")
endfunction()
cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL specdec_quick_build)
