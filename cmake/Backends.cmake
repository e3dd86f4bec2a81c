# SPDX-License-Identifier: Apache-2.0
# Chooses the backends to build (POSTERN_BACKENDS=auto|all|LIST), and generates the table of them.
#
# A backend is a folder src/iommu/NAME with a constant NAME_backend, and two lines below: its place in the order, and the
# processors whose kernels support it, for which auto builds it.
set(POSTERN_BACKENDS auto CACHE STRING "Backends to build: auto (what the target's kernels have), all, or a list")

# In order of preference.
set(postern_known_backends iommufd type1 spapr)

# Only these have CONFIG_VFIO_IOMMU_TYPE1 and CONFIG_VFIO_IOMMU_SPAPR_TCE; CONFIG_VFIO_DEVICE_CDEV excludes SPAPR_TCE_IOMMU.
set(postern_processors_iommufd "^(x86_64|i.86|AMD64|aarch64|arm64|arm.*|s390x|riscv64)$")
set(postern_processors_type1 "^(x86_64|i.86|AMD64|aarch64|arm64|arm.*|s390x)$")
set(postern_processors_spapr "^(ppc64|ppc64le|powerpc64|powerpc64le)$")

if(POSTERN_BACKENDS STREQUAL "" OR (POSTERN_BACKENDS MATCHES "(^|;)(auto|all)(;|$)" AND POSTERN_BACKENDS MATCHES ";"))
  message(FATAL_ERROR "POSTERN_BACKENDS is \"${POSTERN_BACKENDS}\"; it is auto, all, or a list such as \"type1;iommufd\"")
endif()

set(postern_built_backends)
foreach(name IN LISTS postern_known_backends)
  if(POSTERN_BACKENDS STREQUAL all
     OR (POSTERN_BACKENDS STREQUAL auto AND CMAKE_SYSTEM_PROCESSOR MATCHES "${postern_processors_${name}}")
     OR name IN_LIST POSTERN_BACKENDS)
    list(APPEND postern_built_backends ${name})
  endif()
endforeach()
foreach(name IN LISTS POSTERN_BACKENDS)
  if(NOT name MATCHES "^(auto|all)$" AND NOT name IN_LIST postern_known_backends)
    message(FATAL_ERROR "POSTERN_BACKENDS: no backend is called \"${name}\"; give auto, all, or a list of these with \";\" between them: ${postern_known_backends}")
  endif()
endforeach()
list(JOIN postern_built_backends ", " postern_built_text)
message(STATUS "postern's backends: ${postern_built_text}")

function(postern_generate_backend_table output)
  list(LENGTH postern_built_backends POSTERN_BACKEND_COUNT)
  list(LENGTH postern_known_backends POSTERN_KNOWN_COUNT)
  set(POSTERN_BACKEND_DECLARATIONS)
  foreach(name IN LISTS postern_built_backends)
    string(APPEND POSTERN_BACKEND_DECLARATIONS "extern const Backend ${name}_backend;\n")
  endforeach()
  list(TRANSFORM postern_built_backends REPLACE "(.+)" "&\\1_backend" OUTPUT_VARIABLE pointers)
  list(TRANSFORM postern_known_backends REPLACE "(.+)" "\"\\1\"" OUTPUT_VARIABLE names)
  # The kinds of host that /proc/cpuinfo distinguishes: POWER, and others.
  set(POSTERN_POWER_NAMES ${postern_known_backends})
  set(POSTERN_OTHERS_NAMES ${postern_known_backends})
  foreach(name IN LISTS postern_known_backends)
    if(NOT "ppc64le" MATCHES "${postern_processors_${name}}")
      list(REMOVE_ITEM POSTERN_POWER_NAMES ${name})
    endif()
    if(NOT "x86_64" MATCHES "${postern_processors_${name}}" AND NOT "aarch64" MATCHES "${postern_processors_${name}}")
      list(REMOVE_ITEM POSTERN_OTHERS_NAMES ${name})
    endif()
  endforeach()
  foreach(names IN ITEMS POSTERN_POWER POSTERN_OTHERS)
    list(LENGTH ${names}_NAMES ${names}_COUNT)
    list(TRANSFORM ${names}_NAMES REPLACE "(.+)" "\"\\1\"")
    list(JOIN ${names}_NAMES ", " ${names}_NAMES)
  endforeach()
  list(JOIN pointers ", " POSTERN_BACKEND_POINTERS)
  list(JOIN names ", " POSTERN_KNOWN_NAMES)
  configure_file(${PROJECT_SOURCE_DIR}/src/core/backend_table.cpp.in ${output} @ONLY)
endfunction()
