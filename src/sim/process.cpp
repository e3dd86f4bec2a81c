// SPDX-License-Identifier: Apache-2.0
// Process: /proc/self/maps, and two counters.
#include "sim/process.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <string>

namespace postern::sim {

int Process::count(std::uint64_t& counter, std::uint64_t length) {
  if (memory_limit && (length > *memory_limit || counter > *memory_limit - length)) return -ENOMEM;
  counter += length;
  return 0;
}

int Process::check(std::uintptr_t address, std::uint64_t length, bool writable) {
  // What was looked up may have gone since; msync(2) tells, and is quick.
  const std::uintptr_t first = address & ~std::uintptr_t{4095};
  const bool is_there = ::msync(reinterpret_cast<void*>(first), address + length - first, MS_ASYNC) == 0;
  if (is_there && covers(address, length, writable)) return 0;
  read_vmas();
  return covers(address, length, writable) ? 0 : -EFAULT;
}

bool Process::covers(std::uintptr_t address, std::uint64_t length, bool writable) const {
  auto vma = std::upper_bound(vmas_.begin(), vmas_.end(), address,
                              [](std::uintptr_t value, const Vma& each) { return value < each.end; });
  for (std::uintptr_t at = address; at - address < length; at = (vma++)->end) {
    if (vma == vmas_.end() || vma->first > at || !(writable ? vma->writable : vma->readable)) return false;
  }
  return true;
}

void Process::read_vmas() {
  vmas_.clear();
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    char* rest = nullptr;
    const std::uintptr_t first = std::strtoull(line.c_str(), &rest, 16);
    if (*rest != '-') continue;
    const std::uintptr_t end = std::strtoull(rest + 1, &rest, 16);
    const bool readable = rest[0] == ' ' && rest[1] == 'r';
    vmas_.push_back({.first = first, .end = end, .readable = readable, .writable = readable && rest[2] == 'w'});
  }
}

}  // namespace postern::sim
