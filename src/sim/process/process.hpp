// SPDX-License-Identifier: Apache-2.0
// Process: the process that uses the simulated kernel: its open files, which memory it has, and how much is pinned.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "sim/process/mapped_files.hpp"
#include "sim/process/open_files.hpp"
#include "sim/process/vmas.hpp"

namespace postern::sim {

class Process {
 public:
  static constexpr std::uint64_t page_size = 4096;
  static constexpr std::uint64_t huge_page_size = std::uint64_t{2} << 20;

  // RLIMIT_MEMLOCK, in bytes; missing: unlimited, or CAP_IPC_LOCK.
  std::optional<std::uint64_t> memory_limit;
  OpenFiles files;
  // The BARs that it has mapped.
  MappedFiles mapped_files;

  // close(2): 0 or -EBADF. A file is released when it has neither an fd nor a mapping.
  [[nodiscard]] int close(int fd);
  // Removes the mappings in this range.
  void unmapped(std::uintptr_t address, std::size_t length);
  // As at the end of the process: closes and unmaps everything.
  void exit();

  // CAP_IPC_LOCK, CAP_SYS_RAWIO, CAP_SYS_RESOURCE: a process that has a limit has no capabilities.
  [[nodiscard]] bool is_privileged() const noexcept { return !memory_limit; }

  // 0, or the errno of opening /proc/self/maps: then its memory is unknown.
  [[nodiscard]] int opened() const noexcept { return vmas_.opened(); }
  // Whether this memory exists and is readable, or also writable: 0 or -EFAULT.
  [[nodiscard]] int check(std::uintptr_t address, std::uint64_t length, bool writable) {
    return mapped_files.answer(address, length) && vmas_.cover(address, length, writable) ? 0 : -EFAULT;
  }
  // The same for memory to be pinned (pin_user_pages): a BAR has no pages to pin (check_vma_flags refuses VM_IO and
  // VM_PFNMAP).
  [[nodiscard]] int check_pinnable(std::uintptr_t address, std::uint64_t length, bool writable) {
    return mapped_files.bytes_in(address, length) != 0 ? -EFAULT : check(address, length, writable);
  }
  // The same for the argument of a call (Vmas::cover_argument).
  [[nodiscard]] int check_argument(std::uintptr_t address, std::uint64_t length, bool writable) {
    return mapped_files.answer(address, length) && vmas_.cover_argument(address, length, writable) ? 0 : -EFAULT;
  }

  // copy_from_user: 0, or -EFAULT if the memory does not exist.
  [[nodiscard]] int copy_from_user(void* to, const void* from, std::size_t size);
  // Whether these bytes are all zero: 0, -E2BIG, or -EFAULT if memory ends before a non-zero one.
  [[nodiscard]] int check_zero(std::uintptr_t address, std::uint64_t length);
  // copy_struct_from_user: copies up to `size` bytes of the process's struct; further bytes must be zero. Its first
  // page exists, since the caller has read the length there.
  [[nodiscard]] int copy_struct(void* to, std::size_t size, const void* from, std::size_t given);
  // Reads a string of less than a page: 0, -EINVAL if it is longer, or -EFAULT.
  [[nodiscard]] int read_string(const char* from, std::string& text);

  // Counts memory as locked, as type1 does (VmLck), or as pinned, as iommufd does (VmPin): 0 or -ENOMEM.
  // `length` is a multiple of the page.
  [[nodiscard]] int lock(std::uint64_t length) { return count(locked_, length); }
  void unlock(std::uint64_t length) { locked_ -= length; }
  [[nodiscard]] int pin(std::uint64_t length) { return count(pinned_, length); }
  void unpin(std::uint64_t length) { pinned_ -= length; }

  [[nodiscard]] std::uint64_t locked() const noexcept { return locked_; }
  [[nodiscard]] std::uint64_t pinned() const noexcept { return pinned_; }

 private:
  void put(File& file) const;
  [[nodiscard]] int count(std::uint64_t& counter, std::uint64_t length);

  Vmas vmas_;
  std::uint64_t locked_ = 0;
  std::uint64_t pinned_ = 0;
};

}  // namespace postern::sim
