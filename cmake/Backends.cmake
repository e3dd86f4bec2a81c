# SPDX-License-Identifier: Apache-2.0
# Which backends are built, and the table that names them: POSTERN_BACKENDS=auto|all|LIST.
#
# A backend is a folder src/iommu/NAME with a constant NAME_backend. auto takes those that the target's kernels have.
set(POSTERN_BACKENDS auto CACHE STRING "Backends to build: auto (what the target's kernels have), all, or a list")

# In order of preference.
set(postern_known_backends iommufd type1 spapr)

# CONFIG_VFIO_IOMMU_TYPE1 and CONFIG_VFIO_IOMMU_SPAPR_TCE exist on these alone; CONFIG_VFIO_DEVICE_CDEV is not to be had together with SPAPR_TCE_IOMMU.
set(postern_processors_iommufd "^(x86_64|i.86|AMD64|aarch64|arm64|arm.*|s390x|riscv64)$")
set(postern_processors_type1 "^(x86_64|i.86|AMD64|aarch64|arm64|arm.*|s390x)$")
set(postern_processors_spapr "^(ppc64|ppc64le|powerpc64|powerpc64le)$")

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
    message(FATAL_ERROR "POSTERN_BACKENDS: no backend is called \"${name}\"; there are: ${postern_known_backends}")
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
  list(JOIN pointers ", " POSTERN_BACKEND_POINTERS)
  list(JOIN names ", " POSTERN_KNOWN_NAMES)
  configure_file(${PROJECT_SOURCE_DIR}/src/core/backend_table.cpp.in ${output} @ONLY)
endfunction()
