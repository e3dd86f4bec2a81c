// SPDX-License-Identifier: Apache-2.0
// Vmas: PROCMAP_QUERY, or the lines of /proc/self/maps.
#include "sim/process/vmas.hpp"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <string>

namespace postern::sim {
namespace {

constexpr std::uint64_t vma_page = 4096;

// struct procmap_query of linux/fs.h, which may be older than Linux 6.11 on the build host.
struct ProcmapQuery {
  std::uint64_t size = sizeof(ProcmapQuery);
  std::uint64_t query_flags = 0;  // the mapping that covers query_addr
  std::uint64_t query_addr = 0;
  std::uint64_t vma_start = 0;
  std::uint64_t vma_end = 0;
  std::uint64_t vma_flags = 0;
  std::array<std::uint64_t, 3> about_its_file{};
  std::array<std::uint32_t, 4> device_and_sizes{};  // no names are requested
  std::array<std::uint64_t, 2> names{};
};
static_assert(sizeof(ProcmapQuery) == 104);
constexpr unsigned long procmap_query = _IOWR('f', 17, ProcmapQuery);
constexpr std::uint64_t vma_readable = 1;
constexpr std::uint64_t vma_writable = 2;

// Checks whether the page is writable by an atomic addition of 0. The page is populated then, as if it had been pinned.
bool takes_writes(std::uintptr_t page) {
  std::uint32_t nobody = 0;
  constexpr auto add_0 = static_cast<std::uint32_t>(FUTEX_OP_ADD) << 28;
  return ::syscall(SYS_futex, &nobody, FUTEX_WAKE_OP_PRIVATE, 0, nullptr, reinterpret_cast<void*>(page), add_0) >= 0;
}

}  // namespace

Vmas::Vmas() : maps_(::open("/proc/self/maps", O_RDONLY | O_CLOEXEC)) {
  if (maps_ < 0) maps_ = -errno;
  ProcmapQuery query;
  query.query_addr = reinterpret_cast<std::uintptr_t>(&query);
  can_ask_ = maps_ >= 0 && ::ioctl(maps_, procmap_query, &query) == 0;
}

Vmas::~Vmas() {
  if (maps_ >= 0) ::close(maps_);
}

bool Vmas::cover(std::uintptr_t address, std::uint64_t length, bool writable) {
  if (can_ask_) {
    for (std::uintptr_t at = address; at - address < length;) {
      const auto vma = ask(at);
      if (!vma || !(writable ? vma->writable : vma->readable)) return false;
      at = vma->end;
    }
    return true;
  }
  // Only a try shows whether known memory has become read-only. For longer ranges it would populate unused pages.
  constexpr std::uint64_t little = 4 * vma_page;
  if (writable && length <= little && known_cover(address, length, true)) {
    std::uintptr_t at = address & ~(vma_page - 1);
    while (at < address + length && takes_writes(at)) at += vma_page;
    if (at >= address + length) return true;
  }
  read();
  return known_cover(address, length, writable);
}

bool Vmas::cover_argument(std::uintptr_t address, std::uint64_t length, bool writable) {
  constexpr std::uint64_t near = 0x10000;
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  const bool is_on_stack = address >= here && length < near && address - here < near - length;
  if (is_on_stack && known_cover(address, length, writable)) return true;
  if (can_ask_) {
    if (is_on_stack) {
      const auto stack = ask(address);
      if (stack) known_.assign(1, *stack);
    }
    return cover(address, length, writable);
  }
  if (writable) return cover(address, length, true);
  const std::uintptr_t first = address & ~(vma_page - 1);
  const bool is_there = ::msync(reinterpret_cast<void*>(first), address + length - first, MS_ASYNC) == 0;
  if (is_there && known_cover(address, length, false)) return true;
  read();
  return known_cover(address, length, false);
}

std::optional<Vmas::Vma> Vmas::ask(std::uintptr_t address) const {
  ProcmapQuery query;
  query.query_addr = address;
  if (::ioctl(maps_, procmap_query, &query) < 0) return std::nullopt;
  const bool readable = (query.vma_flags & vma_readable) != 0;
  return Vma{.first = query.vma_start,
             .end = query.vma_end,
             .readable = readable,
             .writable = readable && (query.vma_flags & vma_writable) != 0};
}

bool Vmas::known_cover(std::uintptr_t address, std::uint64_t length, bool writable) const {
  auto vma = std::upper_bound(known_.begin(), known_.end(), address,
                              [](std::uintptr_t value, const Vma& each) { return value < each.end; });
  for (std::uintptr_t at = address; at - address < length; at = (vma++)->end) {
    if (vma == known_.end() || vma->first > at || !(writable ? vma->writable : vma->readable)) return false;
  }
  return true;
}

void Vmas::read() {
  known_.clear();
  std::string text;
  std::array<char, 4096> piece{};
  while (const ssize_t got = ::pread(maps_, piece.data(), piece.size(), static_cast<off_t>(text.size()))) {
    if (got < 0) return;
    text.append(piece.data(), static_cast<std::size_t>(got));
  }
  for (std::size_t line = 0; line < text.size(); line = std::min(text.find('\n', line), text.size() - 1) + 1) {
    char* rest = nullptr;
    const std::uintptr_t first = std::strtoull(text.c_str() + line, &rest, 16);
    if (*rest != '-') continue;
    const std::uintptr_t end = std::strtoull(rest + 1, &rest, 16);
    const bool readable = rest[0] == ' ' && rest[1] == 'r';
    known_.push_back({.first = first, .end = end, .readable = readable, .writable = readable && rest[2] == 'w'});
  }
}

}  // namespace postern::sim
