# SPECDEC_ODR: `cmake --build . --target odr` checks that every name has one definition, over all
# objects of the command, the extension and the tests. Nothing is optimised and nothing is run.
#  * One link-time merge of all objects: two types of one name differ (-Wodr, -Wlto-type-mismatch).
#  * The copies of each inline function and template have the same code.
function(specdec_collect_targets out directory)
  get_property(found DIRECTORY "${directory}" PROPERTY BUILDSYSTEM_TARGETS)
  get_property(children DIRECTORY "${directory}" PROPERTY SUBDIRECTORIES)
  foreach(child ${children})
    specdec_collect_targets(more "${child}")
    list(APPEND found ${more})
  endforeach()
  set(${out} ${found} PARENT_SCOPE)
endfunction()

function(specdec_add_odr_check)
  find_package(Python REQUIRED COMPONENTS Interpreter)
  specdec_collect_targets(targets "${PROJECT_SOURCE_DIR}")
  set(objects "")
  foreach(target ${targets})
    get_target_property(type ${target} TYPE)
    # One program only: each has its own main().
    if(type MATCHES "STATIC_LIBRARY|MODULE_LIBRARY" OR target STREQUAL "specdec")
      list(APPEND objects "$<TARGET_OBJECTS:${target}>")
    endif()
  endforeach()
  set(compare "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../tools/check_inline_functions.py")
  set(list "${PROJECT_BINARY_DIR}/odr_objects.txt")
  file(GENERATE OUTPUT "${list}" CONTENT "$<JOIN:${objects},\n>\n")
  set(merged "${PROJECT_BINARY_DIR}/odr_merged.o")
  # Merging is enough: types are compared when they are read, and no code is made. Modules of their
  # own may each have a function of one name.
  add_custom_command(
    OUTPUT "${merged}"
    COMMAND "${CMAKE_CXX_COMPILER}" -r -nostdlib -flto -flinker-output=rel -O0 -Werror=odr
            -Werror=lto-type-mismatch -Wl,-z,muldefs "@${list}" -o "${merged}"
    COMMAND "${Python_EXECUTABLE}" "${compare}" "@${list}"
    DEPENDS "${list}" ${objects} "${compare}"
    VERBATIM)
  add_custom_target(odr DEPENDS "${merged}")
endfunction()
