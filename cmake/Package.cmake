# SPDX-License-Identifier: Apache-2.0
# Installs the libraries, their headers, and the files by which CMake and pkg-config find them.
include(CMakePackageConfigHelpers)

set(postern_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/postern)
# The prefix relative to the .pc file, so that an installation can be moved.
file(RELATIVE_PATH POSTERN_PC_TO_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
if(BUILD_SHARED_LIBS)
  set(POSTERN_IS_STATIC FALSE)
  set(POSTERN_PC_REQUIRES Requires.private)
else()
  set(POSTERN_IS_STATIC TRUE)
  set(POSTERN_PC_REQUIRES Requires)  # users of a static library must link its dependencies
endif()

# postern_install(LIBRARY COMPONENT DESCRIPTION): COMPONENT is for find_package(), LIBRARY is pkg-config's package.
function(postern_install library component POSTERN_PC_DESCRIPTION)
  install(TARGETS ${library} EXPORT ${library}-targets)
  install(DIRECTORY include/${library} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(EXPORT ${library}-targets NAMESPACE postern:: DESTINATION ${postern_package_dir})
  set(POSTERN_PC_NAME ${library})
  if(library STREQUAL postern)
    set(POSTERN_PC_NEEDS "${POSTERN_PC_REQUIRES}: fmt libpci")
  else()
    # Exactly this version, since the libraries are released together.
    set(POSTERN_PC_NEEDS "Requires: postern = ${POSTERN_VERSION}")
  endif()
  configure_file(cmake/library.pc.in ${CMAKE_CURRENT_BINARY_DIR}/${library}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${library}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endfunction()

postern_install(postern postern "Passes devices through Linux VFIO")
if(POSTERN_NVME)
  postern_install(postern-nvme nvme "An NVMe driver in user space, on postern")
endif()
if(POSTERN_SIM)
  postern_install(postern-sim sim "A simulated kernel, for testing code that passes devices through")
endif()

if(POSTERN_VFIO_USER)
  postern_install(postern-vfio-user vfio-user "Lends devices to virtual machine monitors over vfio-user, on postern")
endif()

install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
configure_package_config_file(cmake/postern-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/postern-config.cmake
                              INSTALL_DESTINATION ${postern_package_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/postern-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/postern-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/postern-config-version.cmake
        DESTINATION ${postern_package_dir})
