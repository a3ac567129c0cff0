set(SPECDEC_MATMUL_SOURCES
    cpu/cpu_backend.cc cpu/experts.cc
    cpu/head_reducer.cc
    cpu/matmul.cc
    cpu/pack.cc
    cpu/pack_scalar.cc
    cpu/packed_matrix.cc
    cpu/panel.cc
    cpu/matmul_scalar_float.cc
    cpu/matmul_scalar_q32.cc
    cpu/matmul_scalar_q256.cc)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND SPECDEC_MATMUL_SOURCES
       cpu/matmul_avx2_float.cc
       cpu/matmul_avx2_q32.cc
       cpu/matmul_avx2_q256.cc
       cpu/matmul_avxvnni_q32.cc
       cpu/matmul_avxvnni_q256.cc
       cpu/matmul_avx512_float.cc
       cpu/matmul_avx512_q32.cc
       cpu/matmul_avx512_q256.cc
       cpu/pack_avx2.cc
       cpu/pack_avx512.cc)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  list(APPEND SPECDEC_MATMUL_SOURCES
       cpu/matmul_neon_float.cc
       cpu/matmul_neon_q32.cc
       cpu/matmul_neon_q256.cc)
endif()
