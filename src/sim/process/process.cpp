// SPDX-License-Identifier: Apache-2.0
// Process: /proc/self/maps, and two counters.
#include "sim/process/process.hpp"

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

namespace postern::sim {

int Process::count(std::uint64_t& counter, std::uint64_t length) {
  if (memory_limit && (length > *memory_limit || counter > *memory_limit - length)) return -ENOMEM;
  counter += length;
  return 0;
}

namespace {

// Whether the page can be written, by an atomic addition of nothing. It is there then, as if it had been pinned.
bool takes_writes(std::uintptr_t page) {
  std::uint32_t nobody = 0;
  constexpr auto add_0 = static_cast<std::uint32_t>(FUTEX_OP_ADD) << 28;
  return ::syscall(SYS_futex, &nobody, FUTEX_WAKE_OP_PRIVATE, 0, nullptr, reinterpret_cast<void*>(page), add_0) >= 0;
}

}  // namespace

int Process::check(std::uintptr_t address, std::uint64_t length, bool writable,
                   std::chrono::steady_clock::duration trust) {
  if (!mapped_files.answer(address, length)) return -EFAULT;
  constexpr std::uint64_t small = 1 << 20;  // not so much that a page of each would matter
  const std::uintptr_t first = address & ~(page_size - 1);
  const auto now = std::chrono::steady_clock::now();
  const bool is_there = ::msync(reinterpret_cast<void*>(first), address + length - first, MS_ASYNC) == 0;
  const bool is_known = is_there && now - read_at_ < trust && covers(address, length, writable);
  if (is_known && (!writable || length > small || takes_writes(first))) return 0;
  read_vmas();
  read_at_ = now;
  return covers(address, length, writable) ? 0 : -EFAULT;
}

int Process::check_argument(std::uintptr_t address, std::uint64_t length, bool writable) {
  constexpr std::uint64_t near = 0x10000;
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  const bool is_on_stack = address >= here && length < near && address - here < near - length;
  if (is_on_stack && covers(address, length, writable)) return 0;
  return check(address, length, writable, std::chrono::steady_clock::duration::max());
}

int Process::copy_from_user(void* to, const void* from, std::size_t size) {
  if (check_argument(reinterpret_cast<std::uintptr_t>(from), size, false) < 0) return -EFAULT;
  std::memcpy(to, from, size);
  return 0;
}

// check_zeroed_user
int Process::check_zero(std::uintptr_t address, std::uint64_t length) {
  while (length != 0) {
    const std::uint64_t part = std::min(length, page_size - address % page_size);
    if (check(address, part, false) < 0) return -EFAULT;
    const auto* const bytes = reinterpret_cast<const std::byte*>(address);
    if (std::any_of(bytes, bytes + part, [](std::byte each) { return each != std::byte{}; })) return -E2BIG;
    address += part;
    length -= part;
  }
  return 0;
}

int Process::copy_struct(void* to, std::size_t size, const void* from, std::size_t given) {
  const auto address = reinterpret_cast<std::uintptr_t>(from);
  if (given > size) {
    if (const int result = check_zero(address + size, given - size); result < 0) return result;
  }
  size = std::min(size, given);
  if (size > page_size - address % page_size && check_argument(address, size, false) < 0) return -EFAULT;
  std::memcpy(to, from, size);
  return 0;
}

// strndup_user
int Process::read_string(const char* from, std::string& text) {
  for (const char* at = from; text.size() < page_size; text.push_back(*at++)) {
    const auto address = reinterpret_cast<std::uintptr_t>(at);
    if ((at == from || address % page_size == 0) && check_argument(address, 1, false) < 0) return -EFAULT;
    if (*at == '\0') return 0;
  }
  return -EINVAL;
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
