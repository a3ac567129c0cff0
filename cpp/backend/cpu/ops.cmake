set(SPECDEC_OPS_SOURCES
  cpu/attention_plan.cc cpu/ops.cc cpu/ops_avx2.cc cpu/ops_avx512.cc cpu/ops_scalar.cc)
