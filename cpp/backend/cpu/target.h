// Opens and closes a region compiled for one instruction set while the rest of the file keeps the
// baseline flags, so that no inline function of a header is emitted with instructions the machine
// may lack. Every #include of a standard header stands before the region.
#pragma once

#define SPECDEC_PRAGMA(text) _Pragma(#text)
#define SPECDEC_TARGET_BEGIN(space) SPECDEC_TARGET_##space
#if defined(__clang__)
#define SPECDEC_TARGET_CLANG(isa) \
  SPECDEC_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define SPECDEC_TARGET_scalar SPECDEC_PRAGMA(clang attribute push)
#define SPECDEC_TARGET_END SPECDEC_PRAGMA(clang attribute pop)
#define SPECDEC_TARGET_avx2 SPECDEC_TARGET_CLANG("avx2,fma,f16c,bmi2")
#define SPECDEC_TARGET_neon SPECDEC_TARGET_CLANG("arch=armv8.2-a+dotprod")
#define SPECDEC_TARGET_i8mm SPECDEC_TARGET_CLANG("arch=armv8.2-a+dotprod+i8mm")
#define SPECDEC_TARGET_avxvnni SPECDEC_TARGET_CLANG("avx2,fma,f16c,bmi2,avxvnni")
#if SPECDEC_STAND_IN
#define SPECDEC_TARGET_avxvnniint8 SPECDEC_TARGET_avx2
#else
#define SPECDEC_TARGET_avxvnniint8 SPECDEC_TARGET_CLANG("avx2,fma,f16c,bmi2,avxvnni,avxvnniint8")
#endif
#define SPECDEC_TARGET_avx512 \
  SPECDEC_TARGET_CLANG("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#define SPECDEC_TARGET_amx \
  SPECDEC_TARGET_CLANG(    \
      "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,amx-tile,amx-int8")
#else
#define SPECDEC_TARGET_scalar SPECDEC_PRAGMA(GCC diagnostic push) SPECDEC_PRAGMA(GCC push_options)
#define SPECDEC_TARGET_END SPECDEC_PRAGMA(GCC pop_options) SPECDEC_PRAGMA(GCC diagnostic pop)
#define SPECDEC_TARGET_avx2           \
  SPECDEC_PRAGMA(GCC diagnostic push) \
  SPECDEC_PRAGMA(GCC push_options) SPECDEC_PRAGMA(GCC target("avx2,fma,f16c,bmi2"))
#define SPECDEC_TARGET_neon           \
  SPECDEC_PRAGMA(GCC diagnostic push) \
  SPECDEC_PRAGMA(GCC push_options) SPECDEC_PRAGMA(GCC target("arch=armv8.2-a+dotprod"))
#define SPECDEC_TARGET_i8mm           \
  SPECDEC_PRAGMA(GCC diagnostic push) \
  SPECDEC_PRAGMA(GCC push_options) SPECDEC_PRAGMA(GCC target("arch=armv8.2-a+dotprod+i8mm"))
#define SPECDEC_TARGET_avxvnni        \
  SPECDEC_PRAGMA(GCC diagnostic push) \
  SPECDEC_PRAGMA(GCC push_options) SPECDEC_PRAGMA(GCC target("avx2,fma,f16c,bmi2,avxvnni"))
#if SPECDEC_STAND_IN
#define SPECDEC_TARGET_avxvnniint8 SPECDEC_TARGET_avx2
#else
#define SPECDEC_TARGET_avxvnniint8    \
  SPECDEC_PRAGMA(GCC diagnostic push) \
  SPECDEC_PRAGMA(GCC push_options)    \
  SPECDEC_PRAGMA(GCC target("avx2,fma,f16c,bmi2,avxvnni,avxvnniint8"))
#endif
// GCC 12's own AVX-512 headers trip the uninitialised-variable warnings.
#define SPECDEC_TARGET_avx512                                    \
  SPECDEC_PRAGMA(GCC diagnostic push)                            \
  SPECDEC_PRAGMA(GCC diagnostic ignored "-Wuninitialized")       \
  SPECDEC_PRAGMA(GCC diagnostic ignored "-Wmaybe-uninitialized") \
  SPECDEC_PRAGMA(GCC push_options)                               \
  SPECDEC_PRAGMA(GCC target(                                     \
      "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,prefer-vector-width=512"))
#define SPECDEC_TARGET_amx SPECDEC_TARGET_avx512 SPECDEC_PRAGMA(GCC target("amx-tile,amx-int8"))
#endif
