# nvcc, found on PATH, by CUDACXX, in /usr/local/cuda or in the wheels of the package index
# (docs/cuda.md). Only builds with SPECDEC_CUDA come here.

# Turing to Hopper as machine code, and PTX for what comes later.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90-real 90-virtual
      CACHE STRING "GPU architectures to build for")
endif()
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  message(FATAL_ERROR
    "SPECDEC_CUDA=ON needs nvcc 13, and none was found. Put it on PATH or set CUDACXX to it; the wheels "
    "nvidia-cuda-nvcc, nvidia-cuda-crt, nvidia-nvvm, nvidia-cuda-runtime and nvidia-cuda-cccl contain it "
    "(docs/cuda.md).")
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 13.0)
  message(FATAL_ERROR "SPECDEC_CUDA=ON needs nvcc 13 or newer, found ${CMAKE_CUDA_COMPILER_VERSION} "
                      "(${CMAKE_CUDA_COMPILER})")
endif()
# CMake 3.25 does not know how to ask nvcc for C++20, the newest that nvcc 13 takes.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
# The same rounding as on the CPU: no contraction, no approximate division. Architectures side by side.
string(APPEND CMAKE_CUDA_FLAGS
       " -fmad=false --threads=2 -Xcompiler=-ffp-contract=off,-fsigned-char,-fvisibility=hidden")
# compute-sanitizer then names the line; the code is the same.
if(SPECDEC_TESTS)
  string(APPEND CMAKE_CUDA_FLAGS " -lineinfo")
endif()
# Kernels' sizes and spills in the build log.
option(SPECDEC_CUDA_VERBOSE "Let ptxas report registers and spills" OFF)
if(SPECDEC_CUDA_VERBOSE)
  string(APPEND CMAKE_CUDA_FLAGS " -Xptxas=-v")
endif()
