// SPDX-License-Identifier: Apache-2.0
// Host: the machine that a simulated kernel runs on: platform, IOMMU, PCI functions.
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

/// A simulated PCI function. Plain data; thread safety: as std::string.
struct HostFunction {
  /// Kind of device.
  enum class Model {
    nvme,    ///< NVMe disk (1b36:0010)
    bridge,  ///< PCIe port, with other functions behind it
    edu,     ///< QEMU's educational device (1234:11e8): 28-bit DMA engine, INTx and MSI, no reset
    /// BARs smaller than a page (1234:11ea): memory that shares its page, I/O ports, and memory alone in its page. Only
    /// the last can be mapped. All keep what is written to them.
    small_bars,
    /// PCI Express edu with function-level reset (1234:11e9) and its own VFIO driver, edu-vfio-pci. Bound to that, it
    /// supports migration, with pre-copy and P2P states, and logs the pages it writes.
    migratable_edu,
    ivshmem,  ///< QEMU's ivshmem-plain (1af4:1110): BAR 2 is 1 MiB of memory that outlasts a reset; no interrupts
  };

  PciAddress address;                             ///< where it is
  Model model = Model::nvme;                      ///< its hardware
  int iommu_group = 0;                            ///< negative: none; no IOMMU translates for it
  std::string driver;                             ///< initially bound driver; empty: the native driver
  std::string serial = "simulated";               ///< of an NVMe disk; determines its initial contents
  std::uint64_t bytes = std::uint64_t{64} << 20;  ///< size of an NVMe disk
};

/// Kind of machine: a PC with VT-d or an Arm server with an SMMUv3, which have type1 and iommufd; or a POWER machine
/// with sPAPR, under a hypervisor (pseries) or on bare metal (powernv).
enum class Platform { pc, arm, pseries, powernv };

/// A simulated machine. Plain data; thread safety: as std::vector. POWER hosts use only `functions`, `locked_memory`
/// and `platform`.
struct Host {
  std::vector<HostFunction> functions;         ///< its PCI functions
  std::optional<std::uint64_t> locked_memory;  ///< RLIMIT_MEMLOCK in bytes; missing: unlimited
  unsigned address_bits = 39;                  ///< iova width of the IOMMU: 32 to 57 (VT-d), 32 to 48 (SMMUv3)
  std::uint64_t mapping_limit = 65535;         ///< vfio_iommu_type1.dma_entry_limit
  bool dirty_bits = false;                     ///< the IOMMU supports dirty tracking
  bool enable_unsafe_noiommu_mode = false;     ///< initial value of the vfio module parameter; sysfs can change it
  Platform platform = Platform::pc;            ///< its machine
  bool dynamic_msix = true;                    ///< vectors can be added while MSI-X is enabled (Linux 6.5; x86 and Arm)
};

/// Returns a PC with VT-d that supports dirty tracking. 00:01.0: NVMe disk, bound to vfio-pci. 00:02.0: NVMe disk,
/// 00:03.0: PCIe port, 01:00.0 and 01:00.1 behind it: two NVMe disks in one slot and one group; all with their native
/// drivers. 00:04.0: edu device and 00:05.0: device with small BARs, both bound to vfio-pci. 00:06.0: migratable edu
/// device, bound to its own driver. 00:07.0: ivshmem device, bound to vfio-pci. Thread-safe, as are all functions
/// below.
[[nodiscard]] POSTERN_API Host pc();
/// Returns an Arm server with an SMMUv3 and the same functions: 48 address bits, and an iova window at 0x8000000 that
/// the kernel reserves for interrupts (MSI).
[[nodiscard]] POSTERN_API Host arm();
/// Returns a POWER partition like QEMU's: two NVMe disks, each on its own host bridge, at 0000:00:00.0 (bound to
/// vfio-pci) and 0001:00:00.0.
[[nodiscard]] POSTERN_API Host pseries();
/// Returns a POWER9 machine like QEMU's: the same disks behind root ports, at 0000:01:00.0 and 0001:01:00.0.
[[nodiscard]] POSTERN_API Host powernv();
/// Returns the host named by an option like the tool's --host: "sim" for the PC; "sim:NAME" for a host above ("pc",
/// "arm", "pseries", "powernv"); "sim:FILE" for a host described in a file, whose name contains a "/" or a ".". Never
/// blocks on a file, nor reads one without end. Errors: EINVAL (no host has this name: the error lists them; the file
/// is not a regular file, or is longer than 16 MiB), the errno of reading the file, those of parse_host().
[[nodiscard]] POSTERN_API Result<Host> find_host(std::string_view option);

/// Parses a host described in JSON, with the names of the structs above as keys (docs/simulated-hosts.md). Errors:
/// EINVAL (invalid JSON; nested too deeply; an unknown, missing or duplicate key; an invalid value; an impossible
/// host: see check_host()). The error's object is `file` and the position: "host.json: functions[1].address".
[[nodiscard]] POSTERN_API Result<Host> parse_host(std::string_view json, std::string_view file);

/// Checks that a host is possible: that its functions have different addresses that exist in PCI, and drivers that
/// support them, that its IOMMU can have this many address bits, and so on. Errors: EINVAL, whose object is the
/// position: "functions[1].address".
[[nodiscard]] POSTERN_API Result<void> check_host(const Host& host);

}  // namespace postern::sim
