// SPDX-License-Identifier: Apache-2.0
// The single steps of the tree's searches, without branches. Compilers turn neither into the two or three instructions
// that it takes on x86-64 (GCC 12 makes jumps of the conditional move, and both make four of the add with carry).
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

// The first such step, from node 1. (Given a 1 to begin with, GCC keeps it in a register for the next level.)
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

// `above` where key < bound, `at` otherwise.
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
