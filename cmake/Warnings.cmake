# SPDX-License-Identifier: Apache-2.0
# The warnings that every target of the project is built with.
function(postern_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wconversion -Wnon-virtual-dtor
                                           -Wno-missing-field-initializers)
  # In a unity build a file does not know the names of its neighbours.
  target_compile_options(${target} PRIVATE $<IF:$<BOOL:${CMAKE_UNITY_BUILD}>,$<$<CXX_COMPILER_ID:GNU>:-Wshadow=local>,-Wshadow>)
  if(POSTERN_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
endfunction()
