// SPDX-License-Identifier: Apache-2.0
// The devices of the host that tests run on, bound to vfio-pci while a test runs, and what must not be left behind.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <postern/attach.hpp>
#include <postern/binding.hpp>
#include <postern/locked_memory.hpp>
#include <postern/pci_device.hpp>
#include <postern/pci_function.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/kernel_under_test.hpp"

namespace postern::test {

// The host's NVMe controllers that are alone in their groups, by address; each guest has two.
inline std::vector<PciAddress> nvme_controllers() {
  constexpr std::uint32_t nvme_class = 0x010802;
  std::vector<PciAddress> found;
  const auto functions = list_pci_functions(kernel()).value();
  for (const PciFunction& function : functions) {
    if (function.class_code != nvme_class || !function.host.iommu_group) continue;
    const auto group = find_iommu_group(kernel(), *function.host.iommu_group).value();
    if (group.members.size() == 1) found.push_back(function.address);
  }
  if (found.size() < 2) throw std::runtime_error("this guest has no two NVMe controllers");
  return found;
}
inline PciAddress first_nvme() { return nvme_controllers().front(); }
inline PciAddress last_nvme() { return nvme_controllers().back(); }

// A way to the kernel's IOMMU: a backend and, where it has several, a version of its interface.
struct Interface {
  std::string_view backend;
  std::uint32_t version = 0;
};
// Those that this build and the host have.
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
inline std::string interface_name(const ::testing::TestParamInfo<Interface>& test) {
  const std::string version = test.param.version == 0 ? "" : "_v" + std::to_string(test.param.version);
  return std::string(test.param.backend) + version;
}
inline AttachOptions options_for(Interface interface) {
  return {.backend = interface.backend, .container_options = {.version = interface.version}};
}

// A device that is given to VFIO for as long as this lives.
class Bound {
 public:
  explicit Bound(PciAddress address, Kernel& kernel = test::kernel(), const std::string& driver = "vfio-pci")
      : kernel_(kernel), address_(address) {
    auto function = find_pci_function(kernel, address);
    if (!function) throw std::runtime_error(function.error().message());
    auto binding = bind_to_driver(kernel, function->host, driver);
    if (!binding) throw std::runtime_error(binding.error().message());
    binding_ = *binding;
  }
  ~Bound() { (void)restore_binding(kernel_, binding_); }
  Bound(const Bound&) = delete;
  Bound& operator=(const Bound&) = delete;

  [[nodiscard]] HostDevice host() const { return find_pci_function(kernel_, address_).value().host; }

 private:
  Kernel& kernel_;
  PciAddress address_;
  Binding binding_;
};

// Whether these bytes came from a disk: they are neither what memory is filled with before, nor all alike.
inline bool came_from_disk(const std::vector<std::byte>& bytes) {
  return std::count(bytes.begin(), bytes.end(), std::byte{0xa5}) < 1024 &&
         std::count(bytes.begin(), bytes.end(), std::byte{0}) < 1024;
}

// What this process holds: open files and locked memory.
struct Holdings {
  std::vector<std::string> files;
  std::uint64_t locked = 0;
  std::uint64_t pinned = 0;

  static Holdings now() {
    Holdings holdings;
    EXPECT_EQ(kernel().list_directory("/proc/self/fd", holdings.files), 0);
    const auto memory = LockedMemory::read(kernel()).value();
    holdings.locked = memory.locked;
    holdings.pinned = memory.pinned;
    return holdings;
  }
  friend bool operator==(const Holdings&, const Holdings&) = default;
};

}  // namespace postern::test
