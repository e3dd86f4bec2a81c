# SPDX-License-Identifier: Apache-2.0
# Finds linux/vfio.h and linux/iommufd.h that are new enough, or fetches them: POSTERN_LINUX_UAPI.
#
# Debian 12's are those of Linux 6.1, without cdev and iommufd. Newer ones are taken from Debian's package of headers: only the
# headers for VFIO are copied, into the cache, and nothing is installed. So the code needs no #ifdef for kernel versions.
include(CheckCXXSourceCompiles)

set(POSTERN_LINUX_UAPI "" CACHE PATH "Folder with linux/vfio.h and linux/iommufd.h of Linux 7.0 or newer")

set(postern_uapi_probe "
  #include <linux/iommufd.h>
  #include <linux/vfio.h>
  int main() { return VFIO_DEVICE_FEATURE_ZPCI_ERROR + IOMMU_IOAS_NOIOMMU_GET_PA == 0; }")

function(postern_check_uapi variable directory)
  unset(${variable} CACHE)
  set(CMAKE_REQUIRED_QUIET ON)
  set(CMAKE_REQUIRED_FLAGS "")
  if(directory)
    set(CMAKE_REQUIRED_FLAGS "-isystem ${directory}")
  endif()
  check_cxx_source_compiles("${postern_uapi_probe}" ${variable})
endfunction()

if(DEFINED ENV{XDG_CACHE_HOME})
  set(postern_uapi $ENV{XDG_CACHE_HOME}/postern/uapi)
else()
  set(postern_uapi $ENV{HOME}/.cache/postern/uapi)
endif()
# An earlier run found them in the cache, which may have been deleted since.
if(POSTERN_LINUX_UAPI STREQUAL postern_uapi)
  unset(POSTERN_LINUX_UAPI CACHE)
endif()

if(NOT POSTERN_LINUX_UAPI)
  postern_check_uapi(POSTERN_UAPI_OF_SYSTEM "")
  if(NOT POSTERN_UAPI_OF_SYSTEM)
    unset(POSTERN_UAPI_OF_CACHE CACHE)
    if(EXISTS ${postern_uapi}/linux/stddef.h)
      postern_check_uapi(POSTERN_UAPI_OF_CACHE ${postern_uapi})
    endif()
    if(NOT POSTERN_UAPI_OF_CACHE)
      message(STATUS "Linux headers are too old for VFIO's cdev and iommufd; fetching newer ones")
      set(postern_unpacked ${CMAKE_BINARY_DIR}/linux-libc-dev)
      execute_process(
        COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/scripts/debian-package --suite trixie-backports,forky,sid linux-libc-dev ${postern_unpacked}
        RESULT_VARIABLE postern_fetched OUTPUT_QUIET)
      if(NOT postern_fetched EQUAL 0)
        message(FATAL_ERROR "linux/iommufd.h of Linux 7.0 or newer is needed and could not be fetched.\n"
                            "Give a folder that has it and linux/vfio.h: cmake -DPOSTERN_LINUX_UAPI=FOLDER")
      endif()
      foreach(header vfio vfio_ccw vfio_zdev iommufd stddef)  # stddef has macros that the others use
        file(COPY ${postern_unpacked}/usr/include/linux/${header}.h DESTINATION ${postern_uapi}/linux)
      endforeach()
      file(REMOVE_RECURSE ${postern_unpacked})
    endif()
    set(POSTERN_LINUX_UAPI ${postern_uapi} CACHE PATH "" FORCE)
  endif()
endif()

if(POSTERN_LINUX_UAPI)
  postern_check_uapi(POSTERN_UAPI_WORKS ${POSTERN_LINUX_UAPI})
  if(NOT POSTERN_UAPI_WORKS)
    message(FATAL_ERROR "POSTERN_LINUX_UAPI=${POSTERN_LINUX_UAPI} has no linux/vfio.h and linux/iommufd.h of Linux 7.0 or newer")
  endif()
endif()
