// SPDX-License-Identifier: Apache-2.0
// Barriers between memory that a device reads or writes by DMA, and that device's registers.
#pragma once

#include <atomic>

namespace postern::nvme {

// C++ fences order memory between processors. A device is further away: on arm64 it is in the outer shareable domain
// (dma_wmb() and dma_rmb() of Linux), on ppc64 its registers are not cached, which lwsync does not order.

// What was written to memory before is seen by the device before it sees a register written after.
inline void write_barrier() noexcept {
#if defined(__x86_64__)
  std::atomic_thread_fence(std::memory_order_release);  // stores keep their order: this only holds the compiler
#elif defined(__aarch64__)
  __asm__ volatile("dmb oshst" ::: "memory");
#elif defined(__powerpc64__)
  __asm__ volatile("sync" ::: "memory");
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

// What is read from memory after was written by the device no earlier than what was read before.
inline void read_barrier() noexcept {
#if defined(__x86_64__)
  std::atomic_thread_fence(std::memory_order_acquire);  // loads keep their order, too
#elif defined(__aarch64__)
  __asm__ volatile("dmb oshld" ::: "memory");
#elif defined(__powerpc64__)
  __asm__ volatile("lwsync" ::: "memory");
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

// Tells the processor that it is waiting for memory to change.
inline void relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

}  // namespace postern::nvme
