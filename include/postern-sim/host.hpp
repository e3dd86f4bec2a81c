// SPDX-License-Identifier: Apache-2.0
// Host: what a simulated kernel runs on: its platform, its IOMMU, its PCI functions.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/export.hpp>
#include <postern/pci_address.hpp>
#include <postern/result.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace postern::sim {

// A function on the simulated PCI bus.
struct HostFunction {
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
enum class Platform { pc, arm, pseries, powernv };

struct Host {
  std::vector<HostFunction> functions;
  std::optional<std::uint64_t> locked_memory;  // RLIMIT_MEMLOCK, bytes; missing: unlimited
  unsigned address_bits = 39;                  // that the IOMMU translates: 32 to 57 of VT-d, to 48 of an SMMUv3
  std::uint64_t mapping_limit = 65535;         // vfio_iommu_type1.dma_entry_limit
  bool dirty_bits = false;                     // the IOMMU can tell which pages were written
  bool enable_unsafe_noiommu_mode = false;     // vfio's parameter at first; sysfs changes it
  Platform platform = Platform::pc;            // on POWER nothing but locked_memory is of use of these numbers
};

// A PC with VT-d that tells which pages were written: an NVMe disk at 00:01.0, bound to vfio-pci; another at 00:02.0, a
// PCIe port at 00:03.0, and behind that two NVMe disks of one slot and one group at 01:00.0 and 01:00.1, with the
// drivers that are made for them. At 00:04.0 is an edu device, and at 00:05.0 one with small BARs, both bound to
// vfio-pci; at 00:06.0 one that migrates, bound to its driver.
[[nodiscard]] POSTERN_API Host pc();
// An Arm server with an SMMUv3, and the same functions: 48 address bits, and a window at 0x8000000 that the kernel
// keeps for interrupts.
[[nodiscard]] POSTERN_API Host arm();
// POWER machines as QEMU's: two NVMe disks, each below a host bridge of its own, at 0000:00:00.0 and 0001:00:00.0 of a
// partition (pseries), and at 0000:01:00.0 and 0001:01:00.0, behind root ports, of a POWER9 (powernv). The first is
// bound to vfio-pci.
[[nodiscard]] POSTERN_API Host pseries();
[[nodiscard]] POSTERN_API Host powernv();
// The host that an option names as the tool's --host does: "sim", which is the PC; "sim:NAME" for one of those above
// ("pc", "arm", "pseries", "powernv"); "sim:FILE" for one that a file describes, whose name has a "/" or a ".". Errors:
// EINVAL (no host has this name: they are listed; the file is no regular one, or longer than 16 MiB), the errno of a
// file that cannot be read, and those of parse_host(). Neither waits for a file, nor reads one without end.
[[nodiscard]] POSTERN_API Result<Host> find_host(std::string_view option);

// A host described in JSON, with the names of the structs above (docs/simulated-hosts.md). Errors: EINVAL for what is
// no JSON, nested too deep, a key that is unknown, missing or there twice, a value that is not allowed, and a host that
// cannot be. The error's object is the place, behind the name that `file` gives: "host.json: functions[1].address".
[[nodiscard]] POSTERN_API Result<Host> parse_host(std::string_view json, std::string_view file);

}  // namespace postern::sim
