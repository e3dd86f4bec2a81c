// SPDX-License-Identifier: Apache-2.0
// Single steps of the tree's searches, without branches. On x86-64 these take two or three instructions, which
// compilers do not generate (GCC 12 replaces the conditional move by jumps, and both use four instructions for the add
// with carry).
#pragma once

#include <cstdint>

namespace postern::memory {

// One step down a search tree kept as an array, with the children of node i at 2i and 2i+1: 2i + (key < bound).
[[gnu::always_inline]] inline std::uint64_t step_down(std::uint64_t i, const std::uint64_t& key, std::uint64_t bound) {
#if defined(__x86_64__) && defined(__GNUC__)
  asm("cmpq %[bound], %[key]\n\tadcq %[i], %[i]" : [i] "+r"(i) : [key] "m"(key), [bound] "r"(bound) : "cc");
  return i;
#else
  return i + i + static_cast<std::uint64_t>(key < bound);
#endif
}

// The first step, from node 1. (With an initial 1 as argument, GCC would keep it in a register for the next level.)
[[gnu::always_inline]] inline std::uint64_t step_down_from_1(const std::uint64_t& key, std::uint64_t bound) {
#if defined(__x86_64__) && defined(__GNUC__)
  std::uint64_t i;
  asm("movl $1, %k[i]\n\tcmpq %[bound], %[key]\n\tadcq %[i], %[i]"
      : [i] "=&r"(i)
      : [key] "m"(key), [bound] "r"(bound)
      : "cc");
  return i;
#else
  return 2 + static_cast<std::uint64_t>(key < bound);
#endif
}

// Returns `above` if key < bound, else `at`.
template <typename T>
[[gnu::always_inline]] inline T* step_over(T* at, T* above, const std::uint64_t& key, std::uint64_t bound) {
#if defined(__x86_64__) && defined(__GNUC__)
  asm("cmpq %[bound], %[key]\n\tcmovbq %[above], %[at]"
      : [at] "+r"(at)
      : [above] "r"(above), [key] "m"(key), [bound] "r"(bound)
      : "cc");
  return at;
#else
  return key < bound ? above : at;
#endif
}

}  // namespace postern::memory
