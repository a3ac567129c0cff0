specdec_test_module(line_editor SOURCES "${CMAKE_CURRENT_LIST_DIR}/line_editor.cc" DEPENDS line_editor)
