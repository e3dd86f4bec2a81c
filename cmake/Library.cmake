# SPDX-License-Identifier: Apache-2.0
# Common settings of the project's libraries. Reads POSTERN_VERSION from include/postern/version.hpp.
file(STRINGS ${CMAKE_CURRENT_LIST_DIR}/../include/postern/version.hpp postern_numbers REGEX "^#define POSTERN_VERSION_[A-Z]+ [0-9]+$")
list(TRANSFORM postern_numbers REPLACE "^.* " "")
list(JOIN postern_numbers "." POSTERN_VERSION)

# How the sources of the library target NAME are compiled.
function(postern_compile name)
  target_include_directories(${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
    PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_include_directories(${name} SYSTEM BEFORE PRIVATE ${POSTERN_LINUX_UAPI})
  target_compile_features(${name} PUBLIC cxx_std_20)
  set_target_properties(${name} PROPERTIES
    POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  # Two 64-bit numbers side by side are moved through a vector register by GCC 12, which takes more instructions than it saves:
  # a dozen in every map and unmap.
  target_compile_options(${name} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-fno-tree-slp-vectorize>)
  postern_warnings(${name})
endfunction()

# Makes the library NAME of COMPONENT, to be linked as postern::COMPONENT; its headers are include/NAME. SOVERSION is the
# number of its binary interface, which changes with each change that breaks it (docs/versions.md).
function(postern_library name component soversion)
  add_library(${name})
  add_library(postern::${component} ALIAS ${name})
  postern_compile(${name})
  set_target_properties(${name} PROPERTIES
    EXPORT_NAME ${component} VERSION ${POSTERN_VERSION} SOVERSION ${soversion}
    INSTALL_RPATH "$ORIGIN")  # the others lie beside it
  if(BUILD_SHARED_LIBS)
    # Hides instances of other libraries' templates.
    set(script ${PROJECT_SOURCE_DIR}/cmake/exports.map)
    target_link_options(${name} PRIVATE -Wl,--version-script=${script} -Wl,--no-undefined)
    set_property(TARGET ${name} APPEND PROPERTY LINK_DEPENDS ${script})
  endif()
endfunction()
