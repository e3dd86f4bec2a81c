// SPDX-License-Identifier: Apache-2.0
// Process: the memory of the process that uses the simulated kernel: whether it is there, and how much is pinned.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sim/process/mapped_files.hpp"

namespace postern::sim {

class Process {
 public:
  static constexpr std::uint64_t page_size = 4096;
  static constexpr std::uint64_t huge_page_size = std::uint64_t{2} << 20;

  // RLIMIT_MEMLOCK, in bytes; missing: unlimited, or CAP_IPC_LOCK.
  std::optional<std::uint64_t> memory_limit;
  // The BARs that it has mapped.
  MappedFiles mapped_files;
  // CAP_IPC_LOCK, CAP_SYS_RAWIO, CAP_SYS_RESOURCE: a process that has a limit has no capabilities.
  [[nodiscard]] bool is_privileged() const noexcept { return !memory_limit; }

  // Whether this memory is there for reading, or for writing too: 0 or -EFAULT. What the process has mapped is read
  // anew after a millisecond, and where it does not suffice. Of a large piece it may not be seen that it became
  // read-only within that time.
  [[nodiscard]] int check(std::uintptr_t address, std::uint64_t length, bool writable) {
    return check(address, length, writable, std::chrono::milliseconds(1));
  }
  // The same for memory that is to be pinned (pin_user_pages): a BAR has no pages to pin (check_vma_flags refuses
  // VM_IO and VM_PFNMAP).
  [[nodiscard]] int check_pinnable(std::uintptr_t address, std::uint64_t length, bool writable) {
    return mapped_files.bytes_in(address, length) != 0 ? -EFAULT : check(address, length, writable);
  }
  // The same for the argument of a call: what was read suffices however old it is, if the memory is there still. The
  // stack of who calls always is.
  [[nodiscard]] int check_argument(std::uintptr_t address, std::uint64_t length, bool writable);
  // What was looked up counts no more; since then it may have become read-only, which nothing tells.
  void forget() { vmas_.clear(); }

  // copy_from_user: 0, or -EFAULT where it is not there.
  [[nodiscard]] int copy_from_user(void* to, const void* from, std::size_t size);
  // Whether these bytes are all zero: 0, -E2BIG, or -EFAULT where memory ends before one that is not.
  [[nodiscard]] int check_zero(std::uintptr_t address, std::uint64_t length);
  // copy_struct_from_user: as much of `size` bytes as the process says it has; what it has beyond them must be zero.
  // Its first page is there, since the caller read there how long it is.
  [[nodiscard]] int copy_struct(void* to, std::size_t size, const void* from, std::size_t given);
  // Reads a string of less than a page: 0, -EINVAL where it is longer, or -EFAULT.
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
  struct Vma {
    std::uintptr_t first;
    std::uintptr_t end;
    bool readable;
    bool writable;
  };
  [[nodiscard]] int check(std::uintptr_t address, std::uint64_t length, bool writable,
                          std::chrono::steady_clock::duration trust);
  [[nodiscard]] int count(std::uint64_t& counter, std::uint64_t length);
  [[nodiscard]] bool covers(std::uintptr_t address, std::uint64_t length, bool writable) const;
  void read_vmas();

  std::vector<Vma> vmas_;
  std::chrono::steady_clock::time_point read_at_{};
  std::uint64_t locked_ = 0;
  std::uint64_t pinned_ = 0;
};

}  // namespace postern::sim
