specdec_test_module(decode
  SOURCES
    "${CMAKE_CURRENT_LIST_DIR}/decode.cc"
    "${CMAKE_CURRENT_LIST_DIR}/decode_drafting.cc"
    "${CMAKE_CURRENT_LIST_DIR}/decode_laws.cc"
    "${CMAKE_CURRENT_LIST_DIR}/decode_memory.cc"
    "${CMAKE_CURRENT_LIST_DIR}/decode_sampling.cc"
    "${CMAKE_CURRENT_LIST_DIR}/decode_session.cc"
  DEPENDS decode)
