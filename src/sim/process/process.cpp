// SPDX-License-Identifier: Apache-2.0
// Process: references to files, access to its memory, and the counters of locked and pinned memory.
#include "sim/process/process.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

namespace postern::sim {

// Called when a reference is gone: an fd or a mapping.
void Process::put(File& file) const {
  if (!files.hold(file) && !mapped_files.hold(file)) file.release();
}

int Process::close(int fd) {
  const auto file = files.take_back(fd);
  if (!file) return -EBADF;
  put(*file);
  return 0;
}

void Process::unmapped(std::uintptr_t address, std::size_t length) {
  for (const auto& file : mapped_files.remove(address, length)) put(*file);
}

void Process::exit() {
  unmapped(0, std::size_t{1} << 63);
  for (const auto& [fd, file] : files.all()) file->release();
  files.clear();
}

int Process::count(std::uint64_t& counter, std::uint64_t length) {
  if (memory_limit && (length > *memory_limit || counter > *memory_limit - length)) return -ENOMEM;
  counter += length;
  return 0;
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

}  // namespace postern::sim
