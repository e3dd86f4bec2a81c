// SPDX-License-Identifier: Apache-2.0
// Owner: makes sure that only one nvme::Controller uses a device at a time.
#pragma once

#include <atomic>
#include <postern/pci_device.hpp>
#include <utility>

namespace postern::nvme {

class Owner {
 public:
  explicit Owner(PciDevice& device) noexcept
      : device_(std::atomic_ref(device.is_owned_).exchange(true) ? nullptr : &device) {}
  ~Owner() { release(); }
  Owner(Owner&& other) noexcept : device_(std::exchange(other.device_, nullptr)) {}
  Owner& operator=(Owner&&) = delete;

  [[nodiscard]] bool has_it() const noexcept { return device_ != nullptr; }
  void release() noexcept {
    if (PciDevice* const device = std::exchange(device_, nullptr)) std::atomic_ref(device->is_owned_).store(false);
  }

 private:
  PciDevice* device_;  // null: another one owns it, or it was released
};

}  // namespace postern::nvme
