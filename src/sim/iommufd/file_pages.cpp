// SPDX-License-Identifier: Apache-2.0
// FilePages: reserved addresses, over which the file is mapped.
#include "sim/iommufd/file_pages.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>

#include "sim/process/process.hpp"

namespace postern::sim {
namespace {

constexpr std::uint64_t huge_page = Process::huge_page_size;
constexpr std::uint64_t address_space = std::uint64_t{1} << 46;  // the addresses of a process

std::uint64_t huge_page_of(std::uint64_t at) { return at & ~(huge_page - 1); }

// Maps the file writable if possible: the kernel ignores how the fd was opened. Maps it elsewhere first to see whether
// that fails, since a failed MAP_FIXED may have removed what was there. Returns 0 or a negated errno.
int map_over(std::uintptr_t address, std::uint64_t length, int fd, std::uint64_t offset) {
  const auto map = [&](void* at, int protection, int flags, int from) {
    return ::mmap(at, length, protection, MAP_SHARED | flags, from, static_cast<off_t>(offset));
  };
  const auto map_if_it_can_be = [&](int protection, int from) {
    void* const elsewhere = map(nullptr, protection, MAP_NORESERVE, from);
    if (elsewhere == MAP_FAILED) return false;
    ::munmap(elsewhere, length);
    return map(reinterpret_cast<void*>(address), protection, MAP_FIXED, from) != MAP_FAILED;
  };
  if (map_if_it_can_be(PROT_READ | PROT_WRITE, fd)) return 0;
  const int writable = ::open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_RDWR | O_CLOEXEC);
  if (writable < 0 && (errno == EMFILE || errno == ENFILE)) return -errno;
  const bool is_mapped = writable >= 0 && map_if_it_can_be(PROT_READ | PROT_WRITE, writable);
  if (writable >= 0) ::close(writable);
  return is_mapped || map_if_it_can_be(PROT_READ, fd) ? 0 : -ENOMEM;
}

}  // namespace

FilePages::FilePages(int fd, std::uint64_t start, std::uint64_t length)
    : fd_(::fcntl(fd, F_DUPFD_CLOEXEC, 0)), start_(start), address_(start) {
  if (fd_ < 0) fd_ = -errno;
  const std::uint64_t before = start - huge_page_of(start);
  if (length > address_space) return;
  reserved_length_ = huge_page_of(before + length + huge_page - 1) + huge_page;  // one more for alignment
  void* const free = ::mmap(nullptr, reserved_length_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (free == MAP_FAILED) return;
  reserved_ = reinterpret_cast<std::uintptr_t>(free);
  address_ = huge_page_of(reserved_ + huge_page - 1) + before;
}

FilePages::~FilePages() {
  if (reserved_ != 0 && !is_lost_) ::munmap(reinterpret_cast<void*>(reserved_), reserved_length_);
  if (fd_ >= 0) ::close(fd_);
}

int FilePages::fill(std::uintptr_t address, std::uint64_t length) {
  struct statfs system {};
  struct stat file {};
  if (fd_ == -EMFILE) return fd_;  // a limit of this process; the kernel itself needs no fd
  if (fd_ < 0 || ::fstatfs(fd_, &system) < 0 || ::fstat(fd_, &file) < 0) return -EINVAL;
  const bool is_huge = system.f_type == HUGETLBFS_MAGIC;
  if ((!is_huge && system.f_type != TMPFS_MAGIC) || !S_ISREG(file.st_mode)) return -EINVAL;
  std::uint64_t offset = start_ + (address - address_);
  if (offset + length < offset || offset + length > static_cast<std::uint64_t>(file.st_size)) return -EINVAL;
  if (reserved_ == 0) return -ENOMEM;
  if (is_huge) {  // huge pages are mapped as a whole; those of 1 GiB are not supported
    const std::uint64_t before = offset - huge_page_of(offset);
    length = huge_page_of(before + length + huge_page - 1);
    offset -= before;
    address -= before;
  }
  if (is_lost_) return -ENOMEM;
  const int result = map_over(address, length, fd_, offset);
  is_lost_ = result == -ENOMEM;
  return result;
}

}  // namespace postern::sim
