// SPDX-License-Identifier: Apache-2.0
// POSTERN_API: marks the symbols that the shared libraries export. All others are hidden.
#pragma once

#if defined(__cplusplus) && __cplusplus < 202002L
#error "postern needs C++20: compile with -std=c++20 (pkg-config --cflags postern gives it; CMake's targets set it)"
#endif

/// Exported by a shared library.
#define POSTERN_API __attribute__((visibility("default")))
/// Not exported: for a class nested in an exported one.
#define POSTERN_LOCAL __attribute__((visibility("hidden")))
