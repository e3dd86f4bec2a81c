// SPDX-License-Identifier: Apache-2.0
// Device: a device of the simulated host on any bus, as seen by drivers, IOMMUs and VFIO.
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
  // VFIO creates groups for devices without an IOMMU, and removes them.
  void set_group(int group) noexcept { group_ = group; }

  std::string native_driver;    // its default driver: "nvme"
  std::string driver;           // bound now; empty: none
  std::string driver_override;  // empty: none

  // Translates its DMA; null: its DMA is blocked.
  std::shared_ptr<Domain> domain;
  // All of memory, if it has no IOMMU: its DMA uses this instead of `domain`.
  std::shared_ptr<Domain> physical;
  [[nodiscard]] bool has_iommu() const noexcept { return physical == nullptr; }

  // VFIO's data of it (struct vfio_device).
  std::unique_ptr<DeviceOps> ops;    // those of its VFIO driver
  std::optional<int> minor;          // of its cdev, while it is bound to that driver
  int opens = 0;                     // how often it is open, by its group or its cdev
  bool cdev_opened = false;          // by its cdev
  std::shared_ptr<Iommufd> iommufd;  // to which it is bound, by its cdev or its group; null: none

 private:
  std::string name_;
  int group_;
};

}  // namespace postern::sim
