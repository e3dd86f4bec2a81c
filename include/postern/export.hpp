// SPDX-License-Identifier: Apache-2.0
// POSTERN_API: marks what the shared libraries export. All else in them is hidden.
#pragma once

#if defined(__cplusplus) && __cplusplus < 202002L
#error "postern needs C++20: compile with -std=c++20 (pkg-config --cflags postern gives it; CMake's targets set it)"
#endif

#define POSTERN_API __attribute__((visibility("default")))
// A class within one that is exported, and is not.
#define POSTERN_LOCAL __attribute__((visibility("hidden")))
