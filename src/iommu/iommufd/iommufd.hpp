// SPDX-License-Identifier: Apache-2.0
// Iommufd: an open /dev/iommu, and the objects in it by id.
#pragma once

#include <cstdint>
#include <memory>
#include <postern/fd.hpp>
#include <postern/iova.hpp>
#include <postern/locked_memory.hpp>
#include <postern/result.hpp>
#include <string_view>
#include <vector>

#include "base/maker.hpp"
#include "iommu/requirement.hpp"

namespace postern::iommufd {

inline constexpr std::string_view module = "iommufd";

// An id of the kernel: of an IOAS, a HWPT, a bound device. 0 is none.
using ObjectId = std::uint32_t;

// The limits of an IOAS: usable ranges, and the alignment of iovas.
struct IovaLimits {
  std::vector<IovaRange> ranges;
  std::uint64_t alignment = 0;
};

// The IOMMU of a device.
struct Hardware {
  std::uint64_t page_sizes = 0;  // bitmap; 0 if its driver does not report them
  bool tracks_dirty = false;     // IOMMU_HW_CAP_DIRTY_TRACKING, Linux 6.7
};

class Iommufd {
 public:
  // Opens /dev/iommu, or returns the one already open: all containers of a Kernel share one, so that they can share
  // devices and memory. `node` is the result of probe(), or empty. Any thread. Errors: those of open_node().
  [[nodiscard]] static Result<std::shared_ptr<Iommufd>> shared(Kernel& kernel, NodeFd node);
  // One that was given (ContainerOptions::fd); containers that were given the same share it. Errors: as shared().
  [[nodiscard]] static Result<std::shared_ptr<Iommufd>> of(Kernel& kernel, const std::shared_ptr<const Fd>& given);
  // Opens /dev/iommu to check that this is possible. Empty if one is already open.
  [[nodiscard]] static Result<NodeFd> probe(Kernel& kernel);
  explicit Iommufd(NodeFd fd) : fd_(std::move(fd)) {}

  [[nodiscard]] Kernel& kernel() const noexcept { return fd_.kernel(); }
  [[nodiscard]] int fd() const noexcept { return number_; }
  // The same for all objects of one open /dev/iommu.
  [[nodiscard]] std::shared_ptr<const void> identity() const { return fd_.given ? fd_.given : lifetime_; }

  [[nodiscard]] Result<ObjectId> allocate_ioas() const;
  [[nodiscard]] Result<IovaLimits> iova_limits(ObjectId ioas) const;
  [[nodiscard]] Result<void> avoid_huge_pages(ObjectId ioas) const;
  [[nodiscard]] Hardware hardware_of(ObjectId device) const;
  // Which counter of locked memory it adds to (IOMMU_OPTION_RLIMIT_MODE). If the kernel does not tell, that of the
  // user.
  [[nodiscard]] LockedMemoryCounter counter() const;
  // That of the one that shared() returns, open already or not. Any thread.
  [[nodiscard]] static LockedMemoryCounter shared_counter(Kernel& kernel);
  // `what` names the object in the error: "HWPT". Does nothing in a child of fork(2), which has only a copy.
  [[nodiscard]] Result<void> destroy(ObjectId id, std::string_view what) const;

  [[nodiscard]] bool is_of_this_process() const noexcept { return maker_.is_this_process(); }

 private:
  NodeFd fd_;
  int number_ = fd_.get();  // for maps and unmaps: read without asking whose it is
  std::shared_ptr<const void> lifetime_ = std::make_shared<char>();
  Maker maker_;
};

// /dev/iommu, which stays open for the container; it may be already.
[[nodiscard]] Node node_of_iommufd(const Lookup&);
[[nodiscard]] Result<std::string> find_iommufd_node(const Requirement&, Lookup& lookup);
inline constexpr Requirement iommufd_node{
    .key = "iommufd-node", .title = {}, .node = node_of_iommufd, .find = find_iommufd_node};

}  // namespace postern::iommufd
