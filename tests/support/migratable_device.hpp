// SPDX-License-Identifier: Apache-2.0
// MigratableDevice: a device of the kernel under test that migrates: the simulated edu, or a serial card that the
// sample driver mtty makes of nothing (samples/vfio-mdev/mtty.c, Linux 7.3).
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "support/edu.hpp"
#include "support/host_devices.hpp"
#include "support/raw_device.hpp"

namespace postern::test {

// A mediated device of mtty's, for as long as this lives.
class MttyCard {
 public:
  static bool is_possible() {
    FileStatus status;
    return kernel().status(type, status) == 0;
  }
  MttyCard() {
    if (kernel().write_file(std::string(type) + "/create", uuid) < 0) throw std::runtime_error("mtty makes no device");
  }
  ~MttyCard() { EXPECT_EQ(kernel().write_file("/sys/bus/mdev/devices/" + std::string(uuid) + "/remove", "1"), 0); }
  MttyCard(const MttyCard&) = delete;
  MttyCard& operator=(const MttyCard&) = delete;

  [[nodiscard]] static HostDevice host() { return find_host_device(kernel(), "mdev", uuid).value(); }

 private:
  static constexpr const char* type = "/sys/devices/virtual/mtty/mtty/mdev_supported_types/mtty-1";
  static constexpr const char* uuid = "6d747479-0000-4000-8000-000000000001";
};

class MigratableDevice {
 public:
  // Nothing where the kernel has none.
  static std::unique_ptr<MigratableDevice> make() {
    auto device = std::make_unique<MigratableDevice>();
    if (const auto edu = find_function(0x1234, 0x11e9)) {
      device->edu_.emplace(*edu, kernel(), "edu-vfio-pci");
    } else if (MttyCard::is_possible()) {
      device->mtty_.emplace();
    } else {
      return nullptr;
    }
    return device;
  }

  // Where drivers differ, a test asks which one it is.
  [[nodiscard]] bool is_mtty() const { return mtty_.has_value(); }

  [[nodiscard]] RawDevice open_by_group() const {
    const HostDevice host = this->host();
    return {kernel(), find_iommu_group(kernel(), *host.iommu_group).value().path, host.name};
  }
  [[nodiscard]] RawDevice open_by_cdev() const { return {kernel(), host().cdev->path}; }

  // A register that is part of the state: mtty's scratch register, edu's liveness check, which gives the complement.
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
  [[nodiscard]] HostDevice host() const { return is_mtty() ? MttyCard::host() : edu_->host(); }

  std::optional<Bound> edu_;
  std::optional<MttyCard> mtty_;
};

}  // namespace postern::test
