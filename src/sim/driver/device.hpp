// SPDX-License-Identifier: Apache-2.0
// Device: a device of the simulated host as drivers, IOMMUs and VFIO see it, whatever bus it is on.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "sim/driver/device_ops.hpp"
#include "sim/iommu/address_space.hpp"

namespace postern::sim {

class Iommufd;

class Device {
 public:
  Device(std::string name, int group) : name_(std::move(name)), group_(group) {}
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] int group() const noexcept { return group_; }  // negative: none
  // VFIO makes groups for devices without an IOMMU, and takes them back.
  void set_group(int group) noexcept { group_ = group; }

  std::string native_driver;    // the one that takes it where nobody says otherwise: "nvme"
  std::string driver;           // bound now; empty: none
  std::string driver_override;  // empty: none

  // Where its DMA goes; null: it is blocked.
  std::shared_ptr<Domain> domain;
  // All of memory, where no IOMMU is in front of it: then its DMA goes there, and `domain` is of no use.
  std::shared_ptr<Domain> physical;
  [[nodiscard]] bool has_iommu() const noexcept { return physical == nullptr; }

  // What VFIO keeps of it (struct vfio_device).
  std::unique_ptr<DeviceOps> ops;    // of the VFIO driver that can take it
  std::optional<int> minor;          // of its cdev, while it is bound to that
  int opens = 0;                     // by its group or its cdev
  bool cdev_opened = false;          // by its cdev
  std::shared_ptr<Iommufd> iommufd;  // that it is bound to, by its cdev or its group; null: none

 private:
  std::string name_;
  int group_;
};

}  // namespace postern::sim
