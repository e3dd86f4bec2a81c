// SPDX-License-Identifier: Apache-2.0
// MigratableDevice: a device of the kernel under test that supports migration: the simulated edu, or a card of mtty.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "support/edu.hpp"
#include "support/host_devices.hpp"
#include "support/mtty_card.hpp"
#include "support/raw_device.hpp"

namespace postern::test {

class MigratableDevice {
 public:
  // Null if the kernel has none.
  static std::unique_ptr<MigratableDevice> make() {
    auto device = std::make_unique<MigratableDevice>();
    if (const auto edu = find_function(0x1234, 0x11e9)) {
      device->edu_.emplace(*edu, kernel(), "edu-vfio-pci");
    } else if (MttyCard::is_possible(kernel())) {
      device->mtty_.emplace(kernel());
    } else {
      return nullptr;
    }
    return device;
  }

  // For tests of behaviour that depends on the driver.
  [[nodiscard]] bool is_mtty() const { return mtty_.has_value(); }

  [[nodiscard]] RawDevice open_by_group() const {
    const HostDevice host = this->host();
    return {kernel(), find_iommu_group(kernel(), *host.iommu_group).value().path, host.name};
  }
  [[nodiscard]] RawDevice open_by_cdev() const { return {kernel(), host().cdev->path}; }

  // Writes a register that is part of the state: mtty's scratch register, or edu's liveness check, which reads as the
  // complement.
  void set_mark(const RawDevice& device, std::uint8_t mark) const {
    if (is_mtty()) {
      device.write(7, mark);
    } else {
      device.write(4, ~std::uint32_t{mark});
    }
  }
  [[nodiscard]] std::uint32_t mark(const RawDevice& device) const {
    return is_mtty() ? device.read<std::uint8_t>(7) : device.read(4);
  }

 private:
  [[nodiscard]] HostDevice host() const { return is_mtty() ? mtty_->host() : edu_->host(); }

  std::optional<Bound> edu_;
  std::optional<MttyCard> mtty_;
};

}  // namespace postern::test
