// SPDX-License-Identifier: Apache-2.0
// Iommufd: an open /dev/iommu, and the objects in it by id.
#pragma once

#include <cstdint>
#include <memory>
#include <postern/fd.hpp>
#include <postern/iova.hpp>
#include <postern/result.hpp>
#include <string_view>
#include <vector>

#include "base/maker.hpp"

namespace postern::iommufd {

inline constexpr const char* path = "/dev/iommu";

// Ids are the kernel's: of an IOAS, a HWPT, a bound device. 0 is none.
using ObjectId = std::uint32_t;

// What an IOAS allows: its ranges, and what an iova in it must be a multiple of.
struct IovaLimits {
  std::vector<IovaRange> ranges;
  std::uint64_t alignment = 0;
};

// The IOMMU before a device.
struct Hardware {
  std::uint64_t page_sizes = 0;  // bitmap; 0 where its driver does not tell
  bool tracks_dirty = false;     // it can tell which pages were written (IOMMU_HW_CAP_DIRTY_TRACKING, Linux 6.7)
};

class Iommufd {
 public:
  // One /dev/iommu for all containers of a Kernel that are open at a time, so that they can share devices and memory.
  // `node` is what probe() gave, or nothing. Any thread. Errors: those of open_node().
  [[nodiscard]] static Result<std::shared_ptr<Iommufd>> shared(Kernel& kernel, Fd node);
  // Whether /dev/iommu can be opened, by opening it; nothing where one is open already.
  [[nodiscard]] static Result<Fd> probe(Kernel& kernel);
  explicit Iommufd(Fd fd) noexcept : fd_(std::move(fd)) {}

  [[nodiscard]] Kernel& kernel() const noexcept { return fd_.kernel(); }
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  [[nodiscard]] Result<ObjectId> allocate_ioas() const;
  [[nodiscard]] Result<IovaLimits> iova_limits(ObjectId ioas) const;
  [[nodiscard]] Result<void> avoid_huge_pages(ObjectId ioas) const;
  [[nodiscard]] Hardware hardware_of(ObjectId device) const;
  // `what` names the object in the error: "HWPT". Does nothing in a child of fork(2), which has only copies of it.
  [[nodiscard]] Result<void> destroy(ObjectId id, std::string_view what) const;

  [[nodiscard]] bool is_of_this_process() const noexcept { return maker_.is_this_process(); }

 private:
  Fd fd_;
  Maker maker_;
};

}  // namespace postern::iommufd
