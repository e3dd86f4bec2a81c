// SPDX-License-Identifier: Apache-2.0
// Barriers: they order accesses to memory that a device shares by DMA. Named as in Linux.
//
// C++ fences order memory between processors. A device is further away: on arm64 it is in the outer shareable domain,
// and on ppc64 its registers are not cached, which lwsync does not order. These functions order what the calling thread
// does, as a device with coherent DMA sees it. Accesses to a Register (registers.hpp) need no barrier. Thread-safe.
#pragma once

#include <atomic>

namespace postern {

/// Orders reads of memory: one after the barrier returns data at least as new as one before. Call it between reading
/// the flag by which the device hands data over (a phase bit, an owner bit) and reading that data.
inline void dma_rmb() noexcept {
#if defined(__x86_64__)
  std::atomic_thread_fence(std::memory_order_acquire);  // loads keep their order: this only holds the compiler
#elif defined(__aarch64__)
  __asm__ volatile("dmb oshld" ::: "memory");
#elif defined(__powerpc64__)
  __asm__ volatile("lwsync" ::: "memory");
#elif defined(__riscv)
  __asm__ volatile("fence r, r" ::: "memory");
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

/// Orders writes to memory: a device that sees a write made after the barrier sees all made before it. Call it between
/// writing a descriptor and writing the flag that gives it to the device.
inline void dma_wmb() noexcept {
#if defined(__x86_64__)
  std::atomic_thread_fence(std::memory_order_release);  // stores keep their order, too
#elif defined(__aarch64__)
  __asm__ volatile("dmb oshst" ::: "memory");
#elif defined(__powerpc64__)
  __asm__ volatile("lwsync" ::: "memory");
#elif defined(__riscv)
  __asm__ volatile("fence w, w" ::: "memory");
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

/// Orders all accesses, reads and writes, of memory and of registers: none made after it takes place before one made
/// before. Takes far longer than the others. Call it between a write that the device must see and a read of what the
/// device does in turn: an index given to it, and its request to be notified.
inline void mb() noexcept {
#if defined(__x86_64__)
  __asm__ volatile("mfence" ::: "memory");
#elif defined(__aarch64__)
  __asm__ volatile("dsb sy" ::: "memory");
#elif defined(__powerpc64__)
  __asm__ volatile("sync" ::: "memory");
#elif defined(__riscv)
  __asm__ volatile("fence iorw, iorw" ::: "memory");
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

/// Tells the processor that the thread polls: it saves power, and leaves more of the core to the other thread on it.
inline void cpu_relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

}  // namespace postern
