# SPDX-License-Identifier: Apache-2.0
# What an install has: the library, its headers, and how CMake and pkg-config find them.
include(CMakePackageConfigHelpers)

install(TARGETS postern EXPORT postern-targets)
install(DIRECTORY include/postern DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

if(BUILD_SHARED_LIBS)
  set(POSTERN_IS_STATIC FALSE)
  set(POSTERN_PC_REQUIRES Requires.private)
else()
  set(POSTERN_IS_STATIC TRUE)
  set(POSTERN_PC_REQUIRES Requires)  # a static library's users link what it uses
endif()

set(postern_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/postern)
install(EXPORT postern-targets NAMESPACE postern:: DESTINATION ${postern_package_dir})
configure_package_config_file(cmake/postern-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/postern-config.cmake
                              INSTALL_DESTINATION ${postern_package_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/postern-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/postern-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/postern-config-version.cmake
        DESTINATION ${postern_package_dir})

# From where it lies to the prefix, so that an install can be moved.
file(RELATIVE_PATH POSTERN_PC_TO_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/postern.pc.in ${CMAKE_CURRENT_BINARY_DIR}/postern.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/postern.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
