// SPDX-License-Identifier: Apache-2.0
// Hwpt: one IO page table of an IOAS, and the devices on it. Devices behind different IOMMUs need one each.
#pragma once

#include <memory>
#include <postern/fd.hpp>
#include <postern/result.hpp>
#include <string>

#include "iommu/attached.hpp"
#include "iommu/iommufd/cdev.hpp"
#include "iommu/iommufd/iommufd.hpp"
#include "kernel/ioctl.hpp"

namespace postern::iommufd {

// For a device that could not be attached, if the reason is where memory is mapped.
void explain_reserved(CallFailed& what);

// The destructor destroys the page table, which must have no devices then.
class Hwpt {
 public:
  // Creates a page table for this device with the mappings of the IOAS, with or without dirty tracking.
  [[nodiscard]] static Result<Hwpt> allocate(std::shared_ptr<Iommufd> iommufd, ObjectId ioas, ObjectId device,
                                             bool tracks_dirty);
  Hwpt(Hwpt&& other) noexcept;
  Hwpt& operator=(Hwpt&&) = delete;
  ~Hwpt();

  [[nodiscard]] ObjectId id() const noexcept { return id_; }
  [[nodiscard]] bool tracks_dirty() const noexcept { return tracks_dirty_; }
  [[nodiscard]] Result<void> destroy();

  [[nodiscard]] bool is_tracked() const noexcept { return is_tracked_; }
  // Turns dirty tracking on or off (IOMMU_HWPT_SET_DIRTY_TRACKING). If it cannot be turned off, it counts as off.
  [[nodiscard]] Result<void> track(bool on);

 private:
  Hwpt(std::shared_ptr<Iommufd> iommufd, ObjectId id, bool tracks_dirty) noexcept
      : iommufd_(std::move(iommufd)), id_(id), tracks_dirty_(tracks_dirty) {}

  std::shared_ptr<Iommufd> iommufd_;
  ObjectId id_;
  bool tracks_dirty_;
  bool is_tracked_ = false;
};

// A device attached by its cdev.
struct AttachedCdev final : Attached {
  AttachedCdev(const HostDevice& host_device, BoundDevice bound, Hardware its_hardware)
      : Attached(host_device, std::move(bound.fd), nullptr),
        id(bound.id),
        is_told(bound.is_told),
        kvm_file(std::move(bound.kvm_file)),
        given(std::move(bound.given)),
        hardware(its_hardware) {}

  ObjectId id;       // in the iommufd
  bool is_told;      // somebody else has bound it, and told its id
  KvmFile kvm_file;  // destroyed before the fd is closed
  GivenFdUse given;
  Hardware hardware;  // its IOMMU
  bool is_connected = false;
  Hwpt* hwpt = nullptr;  // null: the kernel made one of its own for the IOAS, as for mediated devices
};

// All devices of this backend's containers have this type.
[[nodiscard]] inline const AttachedCdev& cdev_of(const Attached& device) {
  return static_cast<const AttachedCdev&>(device);
}

// Attaches a bound device to a page table: a HWPT, or an IOAS, for which the kernel then creates a page table. Returns
// 0 or a negated errno.
[[nodiscard]] int attach_page_table(const Fd& device, ObjectId page_table);
// Detaches the device; its DMA is blocked afterwards.
[[nodiscard]] Result<void> detach_page_table(const Fd& device, const std::string& name);

}  // namespace postern::iommufd
