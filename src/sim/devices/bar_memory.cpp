// SPDX-License-Identifier: Apache-2.0
// BarMemory: a memfd that holds all BARs.
#include "sim/devices/bar_memory.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

namespace postern::sim {

int BarMemory::make(std::uint64_t length) {
  if (length == 0) return 0;
  fd_ = ::memfd_create("postern simulated BARs", MFD_CLOEXEC);
  if (fd_ < 0 || ::ftruncate(fd_, static_cast<off_t>(length)) < 0) return -errno;
  void* const memory = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (memory == MAP_FAILED) return -errno;
  bytes_ = {static_cast<std::byte*>(memory), length};
  return 0;
}

BarMemory::~BarMemory() {
  if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace postern::sim
