// SPDX-License-Identifier: Apache-2.0
// sim::Kernel: a simulated kernel and host, to test code that passes devices through.
#pragma once

#include <postern-sim/host.hpp>
#include <postern/export.hpp>
#include <postern/kernel.hpp>
#include <string>
#include <vector>

namespace postern::sim {

class Laboratory;

/// Behaves as Linux 7.3 on the given host: sysfs with driver binding, groups and containers (type1 or sPAPR, each in
/// versions 1 and 2), iommufd with cdevs, and vfio-pci. Events are real eventfds. Differences from a real kernel:
/// - DMA goes through the IOMMU's page tables to the memory of this process. Without an IOMMU, physical addresses are
///   used, which here are this process's virtual ones: IOMMU_IOAS_NOIOMMU_GET_PA reports them, /proc/self/pagemap
///   does not.
/// - Devices run in a separate thread, so a device sees a write to a mapped BAR soon, but not immediately. A mapped BAR
///   keeps its device open until this munmap(); the process's own munmap(2) goes unnoticed. While memory decoding is
///   off, a mapped BAR can still be read and written, but not mapped for DMA.
/// - /proc contains only the process's own directory, which is the real one except for locked-memory figures and the
///   list of open files, and a few files that describe the host (cmdline, cpuinfo, interrupts).
///
/// Uses one fd for itself, one for its devices' BARs, more for eventfds and mapped files, and one thread. If the
/// constructor cannot obtain its own, every call fails with that errno. If the host is impossible, every call fails
/// with EINVAL, and the error of check_host() is logged (log.hpp). Belongs to the process that made it: in a child of
/// fork(2) every call fails at once with ESTALE, and the reason is logged. Must outlive everything attached through it:
/// declare it before devices and containers. If files are still open or mapped when it is destroyed, it logs their
/// names and closes them; a Device that is left must not be used, nor destroyed. Thread safety: as postern::Kernel.
class POSTERN_API Kernel final : public postern::Kernel {
 public:
  /// Boots this host. check_host() shows beforehand whether it is possible.
  explicit Kernel(const Host& host = pc());
  ~Kernel() override;

  [[nodiscard]] int open(const char* path, int flags) override;
  int close(int fd) override;
  [[nodiscard]] int ioctl(int fd, unsigned long request, void* argument) override;
  [[nodiscard]] ssize_t pread(int fd, void* buffer, std::size_t length, std::uint64_t offset) override;
  [[nodiscard]] ssize_t pwrite(int fd, const void* buffer, std::size_t length, std::uint64_t offset) override;
  [[nodiscard]] ssize_t read(int fd, void* buffer, std::size_t length) override;
  [[nodiscard]] ssize_t write(int fd, const void* buffer, std::size_t length) override;
  [[nodiscard]] std::intptr_t mmap(void* address, std::size_t length, int protection, int flags, int fd,
                                   std::uint64_t offset) override;
  int munmap(void* address, std::size_t length) override;
  [[nodiscard]] int fstat(int fd, FileStatus& status) override;
  [[nodiscard]] std::int64_t lseek(int fd, std::uint64_t offset, int whence) override;
  [[nodiscard]] int eventfd() override;
  [[nodiscard]] int read_file(const std::string& path, std::string& contents) override;
  [[nodiscard]] int write_file(const std::string& path, const std::string& contents) override;
  [[nodiscard]] int list_directory(const std::string& path, std::vector<std::string>& names) override;
  [[nodiscard]] int read_link(const std::string& path, std::string& target) override;
  [[nodiscard]] int status(const std::string& path, FileStatus& status) override;
  [[nodiscard]] int access(const std::string& path, int mode) override;

  /// Opens the file that mmap() on a device fd maps, for another process: it has the BARs of all devices of this host.
  /// Returns a descriptor of this process, which the caller closes, and changes `offset` from that in the device fd to
  /// that in the file; or a negated errno: EINVAL (not of a BAR that can be mapped), EBADF (not a device fd of this
  /// kernel). A mapping of it outlives the device, and this kernel.
  [[nodiscard]] int open_bars(int fd, std::uint64_t& offset);

 private:
  friend class Laboratory;
  class POSTERN_LOCAL State;
  template <typename Call>
  auto on_file(int fd, Call call);
  State* state_;  // owned; still there if it was destroyed too early
};

}  // namespace postern::sim
