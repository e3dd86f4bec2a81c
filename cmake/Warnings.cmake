# SPDX-License-Identifier: Apache-2.0
# The warnings enabled for all targets.
function(postern_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wconversion -Wnon-virtual-dtor
                                           -Wno-missing-field-initializers)
  # In a unity build a local name may shadow one of another file of the folder.
  target_compile_options(${target} PRIVATE $<IF:$<BOOL:${CMAKE_UNITY_BUILD}>,$<$<CXX_COMPILER_ID:GNU>:-Wshadow=local>,-Wshadow>)
  if(POSTERN_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
endfunction()
