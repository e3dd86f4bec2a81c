// SPDX-License-Identifier: Apache-2.0
// The devices of the host that tests run on, bound to vfio-pci during a test, and the resources that it must release.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <iterator>
#include <optional>
#include <postern/attach.hpp>
#include <postern/binding.hpp>
#include <postern/locked_memory.hpp>
#include <postern/pci_device.hpp>
#include <postern/pci_function.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/kernel_under_test.hpp"

namespace postern::test {

// The host's NVMe controllers in groups of this many members, sorted by address.
inline std::vector<PciAddress> nvme_controllers(std::size_t members) {
  constexpr std::uint32_t nvme_class = 0x010802;
  std::vector<PciAddress> found;
  const auto functions = list_pci_functions(kernel()).value();
  for (const PciFunction& function : functions) {
    if (function.class_code != nvme_class || !function.host.iommu_group) continue;
    const auto group = find_iommu_group(kernel(), *function.host.iommu_group).value();
    if (group.members.size() == members) found.push_back(function.address);
  }
  return found;
}
// NVMe controllers that are alone in their groups; each host that tests run on has two.
inline const std::vector<PciAddress>& lone_nvme_controllers() {
  static const std::vector<PciAddress> found = nvme_controllers(1);
  if (found.size() < 2) throw std::runtime_error("this host has no two NVMe controllers");
  return found;
}
inline PciAddress first_nvme() { return lone_nvme_controllers().front(); }
inline PciAddress last_nvme() { return lone_nvme_controllers().back(); }
// Two NVMe functions of one slot that share a group; nothing if the host has none.
inline std::optional<std::pair<PciAddress, PciAddress>> twins() {
  static const std::vector<PciAddress> found = nvme_controllers(2);
  if (found.size() < 2) return std::nullopt;
  return std::pair(found[0], found[1]);
}

// A kernel interface to the IOMMU: a backend and, if it has several, a version.
struct Interface {
  std::string_view backend;
  std::uint32_t version = 0;
};
inline std::ostream& operator<<(std::ostream& out, Interface interface) {
  return out << interface.backend << " " << interface.version;
}
// The interfaces that both this build and the host have.
inline std::vector<Interface> interfaces() {
  std::vector<Interface> all;
  for (const Backend* backend : backends()) {
    if (!backend->probe(kernel(), nullptr)) continue;
    for (const std::uint32_t version : backend->versions) all.push_back({backend->name, version});
    if (backend->versions.empty()) all.push_back({backend->name});
  }
  if (all.empty()) throw std::runtime_error("no backend of this build works on this host");
  return all;
}
// Real kernels run under emulation and reset a device at each open, so tests leave cases out unless POSTERN_EVERY_CASE
// is set. Simulated kernels get all.
inline bool few_cases() { return is_real(kernel()) && std::getenv("POSTERN_EVERY_CASE") == nullptr; }
// interfaces(); with few cases, only the newest version of each backend. For tests in which the version matters little.
inline std::vector<Interface> newest_interfaces() {
  std::vector<Interface> all = interfaces();
  if (!few_cases()) return all;
  std::vector<Interface> newest;
  std::copy_if(all.begin(), all.end(), std::back_inserter(newest), [&](const Interface& each) {
    return std::none_of(all.begin(), all.end(), [&](const Interface& other) {
      return other.backend == each.backend && other.version > each.version;
    });
  });
  return newest;
}
inline std::string interface_name(const ::testing::TestParamInfo<Interface>& test) {
  const std::string version = test.param.version == 0 ? "" : "_v" + std::to_string(test.param.version);
  return std::string(test.param.backend) + version;
}
inline AttachOptions options_for(Interface interface) {
  return {.backend = interface.backend, .container_options = {.version = interface.version}};
}

// Binds a device to vfio-pci during its lifetime.
class Bound {
 public:
  explicit Bound(PciAddress address, Kernel& kernel = test::kernel(), const std::string& driver = "vfio-pci")
      : kernel_(kernel), address_(address) {
    auto found = find_host_device(kernel, "pci", to_string(address));
    if (!found) throw std::runtime_error(found.error().message());
    auto binding = bind_to_driver(kernel, *found, driver);
    if (!binding) throw std::runtime_error(binding.error().message());
    binding_ = *binding;
  }
  ~Bound() {
    const auto restored = restore_binding(kernel_, binding_);
    EXPECT_TRUE(restored) << restored.error().message();
  }
  Bound(const Bound&) = delete;
  Bound& operator=(const Bound&) = delete;

  [[nodiscard]] HostDevice host() const { return find_host_device(kernel_, "pci", to_string(address_)).value(); }

 private:
  Kernel& kernel_;
  PciAddress address_;
  Binding binding_;
};

// Whether an NVMe controller is running: CSTS.RDY. Its memory must be enabled.
inline bool is_running(const PciDevice& disk) {
  std::uint32_t status = 0;
  EXPECT_TRUE(disk.enable_memory());
  EXPECT_TRUE(disk.device().read(0, 0x1c, std::as_writable_bytes(std::span(&status, 1))));
  return (status & 1) != 0;
}

// Whether these bytes came from a disk: neither the initial fill nor all the same.
inline bool came_from_disk(const std::vector<std::byte>& bytes) {
  return std::count(bytes.begin(), bytes.end(), std::byte{0xa5}) < 1024 &&
         std::count(bytes.begin(), bytes.end(), std::byte{0}) < 1024;
}

// The resources of this process: open files, locked and pinned memory.
struct ResourceUse {
  std::vector<std::string> files;
  std::uint64_t locked = 0;
  std::uint64_t pinned = 0;

  static ResourceUse now() {
    ResourceUse resources;
    EXPECT_EQ(kernel().list_directory("/proc/self/fd", resources.files), 0);
    const auto memory = LockedMemory::read(kernel()).value();
    resources.locked = memory.locked;
    resources.pinned = memory.pinned;
    return resources;
  }
  friend bool operator==(const ResourceUse&, const ResourceUse&) = default;
};

}  // namespace postern::test
