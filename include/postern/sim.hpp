// SPDX-License-Identifier: Apache-2.0
// SimulatedKernel: a kernel and a host in memory, for testing code that passes devices through.
#pragma once

#include <memory>
#include <optional>
#include <postern/kernel.hpp>
#include <postern/pci_address.hpp>
#include <postern/result.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

namespace sim {
class Laboratory;
}

// A function on the simulated PCI bus.
struct SimulatedFunction {
  enum class Model {
    nvme,    // a disk (1b36:0010)
    bridge,  // a port, which other functions are behind
    edu,     // QEMU's device for learning (1234:11e8): a DMA engine of 28 bits, INTx and MSI, no reset
    // BARs below a page (1234:11ea): memory that shares its page, I/O ports, and memory alone in its page. Only the
    // last can be mapped. They keep what is written to them.
    small_bars,
    // An edu that has function-level reset and PCI Express (1234:11e9), and a VFIO driver of its own, edu-vfio-pci:
    // bound to that it migrates, with pre-copy and P2P states, and logs which pages it writes.
    migratable_edu,
  };

  PciAddress address;
  Model model = Model::nvme;
  int iommu_group = 0;                            // negative: none, and no IOMMU translates for it
  std::string driver;                             // that it is bound to at first; empty: the one made for it
  std::string serial = "simulated";               // of an NVMe; what its disk holds at first depends on it
  std::uint64_t bytes = std::uint64_t{64} << 20;  // of an NVMe's disk
};

// What the host is: a PC with VT-d or an Arm server with an SMMUv3, which have type1 and iommufd; or a POWER machine
// with sPAPR, under a hypervisor or on the bare metal.
enum class SimulatedPlatform { pc, arm, pseries, powernv };

struct SimulatedHost {
  std::vector<SimulatedFunction> functions;
  std::optional<std::uint64_t> locked_memory;  // RLIMIT_MEMLOCK, bytes; missing: unlimited
  unsigned address_bits = 39;                  // that the IOMMU translates: 32 to 57 of VT-d, to 48 of an SMMUv3
  std::uint64_t mapping_limit = 65535;         // vfio_iommu_type1.dma_entry_limit
  bool dirty_bits = false;                     // the IOMMU can tell which pages were written
  bool enable_unsafe_noiommu_mode = false;     // vfio's parameter at first; sysfs changes it
  SimulatedPlatform platform = SimulatedPlatform::pc;  // on POWER nothing but locked_memory is of use of these numbers
};

// A PC with VT-d that tells which pages were written: an NVMe disk at 00:01.0, bound to vfio-pci; another at 00:02.0, a
// PCIe port at 00:03.0, and behind that two NVMe disks of one slot and one group at 01:00.0 and 01:00.1, with the
// drivers that are made for them. At 00:04.0 is an edu device, and at 00:05.0 one with small BARs, both bound to
// vfio-pci; at 00:06.0 one that migrates, bound to its driver.
[[nodiscard]] SimulatedHost simulated_pc();
// An Arm server with an SMMUv3, and the same functions: 48 address bits, and a window at 0x8000000 that the kernel
// keeps for interrupts.
[[nodiscard]] SimulatedHost simulated_arm();
// POWER machines as QEMU's: two NVMe disks, each below a host bridge of its own, at 0000:00:00.0 and 0001:00:00.0 of a
// partition (pseries), and at 0000:01:00.0 and 0001:01:00.0, behind root ports, of a POWER9 (powernv). The first is
// bound to vfio-pci.
[[nodiscard]] SimulatedHost simulated_pseries();
[[nodiscard]] SimulatedHost simulated_powernv();
// The host that an option names as the tool's --host does: "sim", which is the PC; "sim:NAME" for one of those above
// ("pc", "arm", "pseries", "powernv"); "sim:FILE" for one that a file describes, whose name has a "/" or a ".". Errors:
// EINVAL (no host has this name: they are listed; the file is no regular one, or longer than 16 MiB), the errno of a
// file that cannot be read, and those of parse_simulated_host(). Neither waits for a file, nor reads one without end.
[[nodiscard]] Result<SimulatedHost> simulated_host(std::string_view option);

// A host described in JSON, with the names of the structs above (docs/simulated-hosts.md). Errors: EINVAL for what is
// no JSON, nested too deep, a key that is unknown, missing or there twice, a value that is not allowed, and a host that
// cannot be. The error's object is the place, behind the name that `file` gives: "host.json: functions[1].address".
[[nodiscard]] Result<SimulatedHost> parse_simulated_host(std::string_view json, std::string_view file);

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
// Thread rules: as Kernel. It must outlive what was attached on it.
class SimulatedKernel final : public Kernel {
 public:
  explicit SimulatedKernel(const SimulatedHost& host = simulated_pc());
  ~SimulatedKernel() override;

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
  friend class sim::Laboratory;
  class State;
  template <typename Call>
  auto on_file(int fd, Call call);
  std::unique_ptr<State> state_;
};

}  // namespace postern
