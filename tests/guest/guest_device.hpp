// SPDX-License-Identifier: Apache-2.0
// The devices of the x86_64 guest, bound to vfio-pci while a test runs, and what must not be left behind.
#pragma once

#include <gtest/gtest.h>

#include <postern/attach.hpp>
#include <postern/binding.hpp>
#include <postern/locked_memory.hpp>
#include <postern/pci_device.hpp>
#include <postern/pci_function.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace postern::test {

inline constexpr PciAddress nvme_disk{.bus = 0, .device = 1};
inline constexpr PciAddress edu{.bus = 0, .device = 2};
inline constexpr PciAddress nvme_behind_port{.bus = 1, .device = 0};
inline constexpr PciAddress twin_a{.bus = 0, .device = 4, .function = 0};  // two functions of one slot share a group
inline constexpr PciAddress twin_b{.bus = 0, .device = 4, .function = 1};

// A device that is given to VFIO for as long as this lives.
class Bound {
 public:
  explicit Bound(PciAddress address, Kernel& kernel = system_kernel()) : kernel_(kernel), address_(address) {
    auto function = find_pci_function(kernel, address);
    if (!function) throw std::runtime_error(function.error().message());
    auto binding = bind_to_driver(kernel, function->host, "vfio-pci");
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

// What this process holds: open files and locked memory.
struct Holdings {
  std::vector<std::string> files;
  std::uint64_t locked = 0;
  std::uint64_t pinned = 0;

  static Holdings now() {
    Holdings holdings;
    EXPECT_EQ(system_kernel().list_directory("/proc/self/fd", holdings.files), 0);
    const auto memory = LockedMemory::read(system_kernel()).value();
    holdings.locked = memory.locked;
    holdings.pinned = memory.pinned;
    return holdings;
  }
  friend bool operator==(const Holdings&, const Holdings&) = default;
};

}  // namespace postern::test
