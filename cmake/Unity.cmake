# SPDX-License-Identifier: Apache-2.0
# With CMAKE_UNITY_BUILD the sources of a folder are compiled as one unit, so each header is read once per folder. The files of
# a folder therefore share an unnamed namespace. scripts/lint alone checks that each file also compiles by itself.

# Groups a target's sources by folder. Call it after the target's last target_sources().
function(postern_unity target)
  get_target_property(sources ${target} SOURCES)
  get_target_property(folder ${target} SOURCE_DIR)
  set_target_properties(${target} PROPERTIES UNITY_BUILD_MODE GROUP)
  list(FILTER sources INCLUDE REGEX "\\.cpp$")
  foreach(source IN LISTS sources)
    cmake_path(ABSOLUTE_PATH source BASE_DIRECTORY ${folder} NORMALIZE)
    cmake_path(GET source PARENT_PATH group)
    cmake_path(RELATIVE_PATH group BASE_DIRECTORY ${PROJECT_SOURCE_DIR})
    string(MAKE_C_IDENTIFIER "${group}" group)
    set_property(SOURCE ${source} TARGET_DIRECTORY ${target} PROPERTY UNITY_GROUP ${group})
  endforeach()
endfunction()
