# Helpers shared by every layer: one static library per layer, one set of flags.

find_package(Threads REQUIRED)

add_library(specdec_flags INTERFACE)
target_include_directories(specdec_flags INTERFACE "${PROJECT_SOURCE_DIR}/cpp")
target_compile_definitions(specdec_flags INTERFACE SPECDEC_VERSION="${PROJECT_VERSION}")
# Options of the C++ compiler only: nvcc has its own in cmake/cuda.cmake.
function(specdec_cxx_options)
  foreach(flag ${ARGN})
    target_compile_options(specdec_flags INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${flag}>")
  endforeach()
endfunction()
# Contraction is off so that every instruction set rounds alike; kernels ask for fma by name.
specdec_cxx_options(-ffp-contract=off -fno-math-errno)
# Plain char is signed on x86-64 and unsigned on aarch64: text is handled alike on both.
specdec_cxx_options(-fsigned-char)
target_link_libraries(specdec_flags INTERFACE Threads::Threads)
if(SPECDEC_WERROR)
  specdec_cxx_options(-Wall -Wextra -Wshadow -Werror)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14)
    # GCC 12 sees overlap in `"literal" + string` where there is none (GCC bug 105651).
    specdec_cxx_options(-Wno-restrict)
  elseif(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    # libstdc++ 12's stable_sort uses a function that it calls deprecated, and Clang tells of it here.
    specdec_cxx_options(-Wno-deprecated-declarations)
  endif()
endif()
if(SPECDEC_ODR)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    message(FATAL_ERROR "SPECDEC_ODR needs GCC, found ${CMAKE_CXX_COMPILER_ID}")
  endif()
  # -fPIC for programs too: one body must give one code.
  specdec_cxx_options(-O0 -flto -ffat-lto-objects -fPIC)
endif()
if(SPECDEC_SANITIZE)
  specdec_cxx_options(-fsanitize=${SPECDEC_SANITIZE} -fno-omit-frame-pointer -g1)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC sees uninitialised values in instrumented code where there are none, and says so in its manual.
    specdec_cxx_options(-Wno-maybe-uninitialized)
  endif()
  target_link_options(specdec_flags INTERFACE -fsanitize=${SPECDEC_SANITIZE})
endif()
# Instructions that not every compiler knows; or others in their place.
if(SPECDEC_STAND_INS)
  set(SPECDEC_AVXVNNIINT8 ON)
  target_compile_definitions(specdec_flags INTERFACE SPECDEC_STAND_IN=1)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  # The assembler, too, has to know it.
  include(CheckCXXSourceCompiles)
  check_cxx_source_compiles([[
    #include <immintrin.h>
    __attribute__((target("avx2,avxvnniint8"))) __m256i dot(__m256i a, __m256i b, __m256i c) {
      return _mm256_dpbssd_epi32(a, b, c);
    }
    int main() { return 0; }
  ]] SPECDEC_AVXVNNIINT8)
endif()
if(SPECDEC_AVXVNNIINT8)
  target_compile_definitions(specdec_flags INTERFACE SPECDEC_AVXVNNIINT8)
endif()
if(SPECDEC_SCALAR_ONLY)
  target_compile_definitions(specdec_flags INTERFACE SPECDEC_SCALAR_ONLY)
endif()
if(SPECDEC_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "SPECDEC_FUZZ needs Clang with libFuzzer, found ${CMAKE_CXX_COMPILER_ID}: "
                        "set CMAKE_CXX_COMPILER")
  endif()
  # Undefined behaviour ends the process, so that the fuzzer keeps the input.
  specdec_cxx_options(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
                      -fno-omit-frame-pointer -g1)
  target_link_options(specdec_flags INTERFACE -fsanitize=address,undefined)
endif()

# specdec_layer(name SOURCES a.cc b.cc DEPENDS other_layer ...)
function(specdec_layer name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_library(specdec_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(specdec_${name} PUBLIC specdec_flags)
  foreach(dep ${ARG_DEPENDS})
    target_link_libraries(specdec_${name} PUBLIC specdec_${dep})
  endforeach()
endfunction()

# specdec_glue(target group): code between C++ and Python. Little optimisation, as it runs between passes
# only, and pybind11 is read once for a group of targets, which would take most of the time otherwise.
function(specdec_glue target group)
  if(SPECDEC_ODR)
    return()
  endif()
  target_compile_options(${target} PRIVATE -O1)
  # A definition that nothing reads, by which targets would differ.
  set_target_properties(${target} PROPERTIES DEFINE_SYMBOL "")
  get_property(first GLOBAL PROPERTY SPECDEC_GLUE_${group})
  if(first)
    target_precompile_headers(${target} REUSE_FROM ${first})
  else()
    target_precompile_headers(${target} PRIVATE <pybind11/numpy.h> <pybind11/pybind11.h> <pybind11/stl.h>)
    set_property(GLOBAL PROPERTY SPECDEC_GLUE_${group} ${target})
  endif()
endfunction()

# specdec_test_module(area SOURCES x.cc DEPENDS layer ...): an extension module
# specdec_native._testing_<area> that lets pytest reach C++ below the public API.
function(specdec_test_module area)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  pybind11_add_module(_testing_${area} MODULE NO_EXTRAS ${ARG_SOURCES})
  target_link_libraries(_testing_${area} PRIVATE specdec_flags)
  specdec_glue(_testing_${area} tests)
  foreach(dep ${ARG_DEPENDS})
    target_link_libraries(_testing_${area} PRIVATE specdec_${dep})
  endforeach()
  install(TARGETS _testing_${area} LIBRARY DESTINATION specdec_native)
endfunction()
