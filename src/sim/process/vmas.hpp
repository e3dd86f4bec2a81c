// SPDX-License-Identifier: Apache-2.0
// Vmas: what memory the process has, and for what, as the kernel it runs on has it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace postern::sim {

// /proc/self/maps is opened once: a process that has no fds left has its memory all the same.
class Vmas {
 public:
  Vmas();
  ~Vmas();
  Vmas(const Vmas&) = delete;
  Vmas& operator=(const Vmas&) = delete;

  // 0, or the negated errno of opening it: then no memory is known.
  [[nodiscard]] int opened() const noexcept { return maps_ < 0 ? maps_ : 0; }

  // Whether this memory is there now for reading, or for writing too. Where the kernel tells about one mapping at a
  // time (PROCMAP_QUERY, Linux 6.11) that costs a system call for each; else all of them are read, but for a few pages
  // that are to be written.
  [[nodiscard]] bool cover(std::uintptr_t address, std::uint64_t length, bool writable);
  // The same for what a call is given. The stack of who calls is not looked up again and again; and where all mappings
  // would have to be read, what was read of memory for reading suffices however old it is, if memory is there.
  [[nodiscard]] bool cover_argument(std::uintptr_t address, std::uint64_t length, bool writable);

 private:
  struct Vma {
    std::uintptr_t first;
    std::uintptr_t end;
    bool readable;
    bool writable;
  };
  [[nodiscard]] std::optional<Vma> ask(std::uintptr_t address) const;
  [[nodiscard]] bool known_cover(std::uintptr_t address, std::uint64_t length, bool writable) const;
  void read();

  int maps_;
  bool can_ask_ = true;
  std::vector<Vma> known_;  // what was read; where the kernel can be asked, the stack that was used last
};

}  // namespace postern::sim
