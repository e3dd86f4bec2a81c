# SPDX-License-Identifier: Apache-2.0
# The warnings that every target of the project is built with.
function(postern_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor
                                           -Wno-missing-field-initializers)
  if(POSTERN_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
endfunction()
