// SPDX-License-Identifier: Apache-2.0
// Machine: the state of the simulated host and its kernel: functions, IOMMU groups, drivers, the process.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "sim/devices/bar_memory.hpp"
#include "sim/iommu/iommu_model.hpp"
#include "sim/pci/function.hpp"
#include "sim/process/file.hpp"
#include "sim/process/lowest_free.hpp"
#include "sim/process/process.hpp"
#include "sim/spapr/mm_regions.hpp"
#include "sim/spapr/tce_platform.hpp"

namespace postern::sim {

// The open node of a group.
class OpenGroup {
 public:
  // The group loses its node: an open file of it becomes unusable.
  virtual void revoke() = 0;

 protected:
  ~OpenGroup() = default;
};

// An IOMMU group. VFIO knows it while one of its devices is bound to a VFIO driver.
struct Group {
  int id = 0;
  OpenGroup* file = nullptr;    // null: not open
  bool is_noiommu = false;      // created by VFIO for a device without an IOMMU (VFIO_NO_IOMMU)
  int open_cdevs = 0;           // bound to an iommufd
  const void* owner = nullptr;  // of its DMA: a container or an iommufd; null: the kernel
};

// The names of their nodes below /dev/vfio and /dev/vfio/devices.
[[nodiscard]] std::string node_name(const Group& group);
[[nodiscard]] std::string cdev_name(const Device& device);  // while it has a minor

// Used only under the lock.
class Machine {
 public:
  using Lock = std::unique_lock<std::mutex>;

  std::mutex mutex;
  std::condition_variable changed;  // a device was closed or opened

  IommuModel iommu;
  Process process;
  Platform platform = Platform::pc;
  std::unique_ptr<TcePlatform> tce;  // of a POWER host; null: a PC or an Arm server, with `iommu`
  MmRegions regions{process};
  std::uint64_t mapping_limit = 65535;  // vfio_iommu_type1.dma_entry_limit
  bool unsafe_noiommu = false;          // vfio.enable_unsafe_noiommu_mode
  BarMemory bar_memory;
  std::map<PciAddress, std::unique_ptr<Function>> functions;
  std::map<int, Group> groups;
  std::set<std::string> drivers{"vfio-pci", "nvme", "pcieport", "pci-stub"};
  std::uint64_t generation = 0;  // of what sysfs shows

  void add(std::unique_ptr<Function> function);
  // Called when all functions exist: allocates memory for their BARs, and puts them into their groups. Returns 0 or a
  // negated errno.
  [[nodiscard]] int connect();
  [[nodiscard]] Function* find(std::string_view name);
  // In the order of their addresses.
  [[nodiscard]] std::span<Device* const> devices_of(int group) const;
  // Whether a kernel driver does DMA for a device of the group, which excludes user space.
  [[nodiscard]] bool kernel_owns(int group) const;
  // All of its functions.
  void reset_group(int group);
  // Whether the group has a node, /dev/vfio/N.
  [[nodiscard]] bool has_vfio(int group) const;

  // The effect of writes to sysfs: 0 or a negated errno. Unbinding waits until the function is closed.
  [[nodiscard]] int bind(Function& function, const std::string& driver);
  [[nodiscard]] int unbind(Function& function, Lock& lock);
  [[nodiscard]] int probe(Function& function);

 private:
  void make_noiommu_group(Device& device);
  void leave_noiommu_group(Device& device);

  std::shared_ptr<Domain> physical_;             // all of memory, for devices without an IOMMU
  std::map<int, std::vector<Device*>> members_;  // by the number of their group
  LowestFree group_ids_;
  LowestFree minors_;
};

}  // namespace postern::sim
