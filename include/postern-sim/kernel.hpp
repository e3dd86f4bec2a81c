// SPDX-License-Identifier: Apache-2.0
// sim::Kernel: a kernel and a host in memory, for testing code that passes devices through.
#pragma once

#include <memory>
#include <postern-sim/host.hpp>
#include <postern/export.hpp>
#include <postern/kernel.hpp>
#include <string>
#include <vector>

namespace postern::sim {

class Laboratory;

// It answers as Linux 7.3 does on such a host: sysfs with binding, groups and containers (type1 or sPAPR, each in
// versions 1 and 2), iommufd with cdevs, and vfio-pci. Events are real eventfds. Where it is not like a real kernel:
// - DMA goes through the IOMMU's page tables into the memory of this process. Without an IOMMU it goes by physical
//   addresses, which are this process's own here: IOMMU_IOAS_NOIOMMU_GET_PA tells them, /proc/self/pagemap does not.
// - The devices run in a thread of their own, so that one sees a write to a mapped BAR soon, not at once. A mapped BAR
//   keeps its device open until munmap() here: that the process called munmap(2) itself is not seen. While memory
//   decoding is off, it can still be read and written where it is mapped, but not mapped for DMA.
// - Of /proc it has the folder of the process itself, which is the real one but for the numbers of locked memory and
//   the list of open files, and the few files that tell of the host (cmdline, cpuinfo, interrupts).
// What it takes of the process is one fd for itself and one for its devices' BARs, more for eventfds and files that are
// mapped, and a thread. Where those of itself cannot be had when it is made, each call gives the errno. It belongs to
// the process that made it: in a child of fork(2) each call gives ESTALE, at once, and why is logged (log.hpp).
// Thread rules: as postern::Kernel. It must outlive what was attached on it.
class POSTERN_API Kernel final : public postern::Kernel {
 public:
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
  [[nodiscard]] int eventfd() override;
  [[nodiscard]] int read_file(const std::string& path, std::string& contents) override;
  [[nodiscard]] int write_file(const std::string& path, const std::string& contents) override;
  [[nodiscard]] int list_directory(const std::string& path, std::vector<std::string>& names) override;
  [[nodiscard]] int read_link(const std::string& path, std::string& target) override;
  [[nodiscard]] int status(const std::string& path, FileStatus& status) override;
  [[nodiscard]] int access(const std::string& path, int mode) override;

 private:
  friend class Laboratory;
  class POSTERN_LOCAL State;
  template <typename Call>
  auto on_file(int fd, Call call);
  std::unique_ptr<State> state_;
};

}  // namespace postern::sim
