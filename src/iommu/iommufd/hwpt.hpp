// SPDX-License-Identifier: Apache-2.0
// Hwpt: one IO page table of an IOAS, and the devices on it. Devices behind different IOMMUs need one each.
#pragma once

#include <memory>
#include <postern/fd.hpp>
#include <postern/result.hpp>
#include <string>

#include "iommu/iommufd/iommufd.hpp"

namespace postern::iommufd {

// Destroyed when it goes; by then no device may be on it.
class Hwpt {
 public:
  // A page table for this device that holds what the IOAS maps; one that can tell which pages were written, or not.
  [[nodiscard]] static Result<Hwpt> allocate(std::shared_ptr<Iommufd> iommufd, ObjectId ioas, ObjectId device,
                                             bool tracks_dirty);
  Hwpt(Hwpt&& other) noexcept;
  Hwpt& operator=(Hwpt&&) = delete;
  ~Hwpt();

  [[nodiscard]] ObjectId id() const noexcept { return id_; }
  [[nodiscard]] bool tracks_dirty() const noexcept { return tracks_dirty_; }
  [[nodiscard]] Result<void> destroy();

  int users = 0;            // devices that are attached to it: its container's book-keeping
  bool is_tracked = false;  // its dirty bits are on: its dirty log's

 private:
  Hwpt(std::shared_ptr<Iommufd> iommufd, ObjectId id, bool tracks_dirty) noexcept
      : iommufd_(std::move(iommufd)), id_(id), tracks_dirty_(tracks_dirty) {}

  std::shared_ptr<Iommufd> iommufd_;
  ObjectId id_;
  bool tracks_dirty_;
};

// A bound device that is attached, and its page table: null where the kernel made it one of its own for the IOAS, as it
// does for mediated devices.
struct AttachedDevice {
  std::string name;
  std::uint64_t page_sizes;  // of its IOMMU, as Hardware has them
  Hwpt* hwpt;
};

// Puts a bound device on a page table: a HWPT, or an IOAS, for which the kernel then makes one of its own. Gives 0 or a
// negated errno.
[[nodiscard]] int attach_page_table(const Fd& device, ObjectId page_table);
// Takes the device off; from then on its DMA is blocked.
[[nodiscard]] Result<void> detach_page_table(const Fd& device, const std::string& name);

}  // namespace postern::iommufd
