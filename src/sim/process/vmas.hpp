// SPDX-License-Identifier: Apache-2.0
// Vmas: the memory of the process and its access rights, as the real kernel reports them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace postern::sim {

// /proc/self/maps is opened once, so that this works even if the process has no fds left.
class Vmas {
 public:
  Vmas();
  ~Vmas();
  Vmas(const Vmas&) = delete;
  Vmas& operator=(const Vmas&) = delete;

  // 0, or the negated errno of opening it: then its memory is unknown.
  [[nodiscard]] int opened() const noexcept { return maps_ < 0 ? maps_ : 0; }

  // Whether this memory is readable now, or also writable. If the kernel reports single mappings (PROCMAP_QUERY, Linux
  // 6.11), that costs a system call for each; else all mappings are read, except for a few pages to be written.
  [[nodiscard]] bool cover(std::uintptr_t address, std::uint64_t length, bool writable);
  // The same for the argument of a call. The caller's stack is not looked up again and again. If all mappings would
  // have to be read, mappings read earlier suffice for readable memory.
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
  std::vector<Vma> known_;  // the mappings read last; with PROCMAP_QUERY, the stack used last
};

}  // namespace postern::sim
