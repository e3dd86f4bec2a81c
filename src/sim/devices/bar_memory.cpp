// SPDX-License-Identifier: Apache-2.0
// BarMemory: a memfd.
#include "sim/devices/bar_memory.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <stdexcept>

namespace postern::sim {
namespace {

constexpr std::size_t page = 4096;

std::size_t whole_pages(std::size_t size) { return (size + page - 1) & ~(page - 1); }

}  // namespace

BarMemory::BarMemory(std::size_t size) : fd_(::memfd_create("postern simulated BAR", MFD_CLOEXEC)) {
  const std::size_t length = whole_pages(size);
  void* const memory = fd_ >= 0 && ::ftruncate(fd_, static_cast<off_t>(length)) == 0
                           ? ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0)
                           : MAP_FAILED;
  if (memory == MAP_FAILED) {
    if (fd_ >= 0) ::close(fd_);
    throw std::runtime_error("no memory for a simulated BAR");
  }
  bytes_ = {static_cast<std::byte*>(memory), size};
}

BarMemory::~BarMemory() {
  ::munmap(bytes_.data(), whole_pages(bytes_.size()));
  ::close(fd_);
}

}  // namespace postern::sim
