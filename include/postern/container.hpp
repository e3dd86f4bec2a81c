// SPDX-License-Identifier: Apache-2.0
// Container: one IOMMU address space, and the devices that share it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <postern/fd.hpp>
#include <postern/host_device.hpp>
#include <postern/mapping.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

class DirtyTracker;
class DmaWindows;
class Eeh;
class Group;
class Preregistration;
class ShadowMap;

// The public functions check (alignment, bounds, overlap, usable ranges, the limit), keep the shadow map, and put
// errors in words; a backend does the one thing that differs. Made by attach(); it lives as long as a device or its
// owner holds it, so no device can outlive it. Thread rules: one thread at a time; different containers may be used by
// different threads at once. A child of fork(2) may let its copy go, and do no more with it (docs/architecture.md).
class POSTERN_API Container {
 public:
  virtual ~Container();
  Container(const Container&) = delete;
  Container& operator=(const Container&) = delete;

  [[nodiscard]] std::string_view backend() const noexcept { return traits_.backend; }  // "type1", "iommufd"

  // Lets the attached devices reach `memory` at `iova`. The memory stays the caller's, is pinned until unmapped, and
  // must not be freed before. Address, length and iova are multiples of the smallest page size. Kernel:
  // VFIO_IOMMU_MAP_DMA, IOMMU_IOAS_MAP. Errors: EINVAL (empty or unaligned), EOVERFLOW (iovas or memory run past 2^64),
  // ERANGE (outside the usable ranges, which are named), EEXIST (overlaps a mapping: both are named), ENOSPC (the
  // mapping limit), ENODEV (no device is attached), EBADF (closed), ENOMEM (locked memory: how much is needed is said),
  // EFAULT (no such memory). On an error nothing is mapped.
  [[nodiscard]] Result<void> map(Iova iova, std::span<std::byte> memory, Access access = Access::read_write);

  // Takes back one mapping, or several at once if the range covers each of them whole. Kernel: VFIO_IOMMU_UNMAP_DMA,
  // IOMMU_IOAS_UNMAP. Errors: EINVAL (empty, unaligned, or splits a mapping: it is named), EOVERFLOW, ENOENT (nothing).
  [[nodiscard]] Result<void> unmap(Iova iova, std::uint64_t length);

  // Takes back every mapping. Kernel: VFIO_DMA_UNMAP_FLAG_ALL, IOMMU_IOAS_UNMAP of everything.
  [[nodiscard]] Result<void> unmap_all();

  // Unmaps everything and lets go of the kernel's objects. After it every other function gives EBADF. Errors: EBUSY
  // (devices are attached: they are named, and nothing is done), those of the ioctls: then it may be tried again.
  [[nodiscard]] Result<void> close();

  [[nodiscard]] const std::vector<IovaRange>& usable_ranges() const noexcept { return limits_.usable_ranges; }
  [[nodiscard]] std::uint64_t page_sizes() const noexcept { return limits_.page_sizes; }
  [[nodiscard]] std::optional<std::uint64_t> mapping_limit() const noexcept { return limits_.mapping_limit; }
  [[nodiscard]] std::optional<std::uint64_t> mappings_left() const noexcept;
  [[nodiscard]] std::size_t mapping_count() const noexcept;
  // The mapping that holds this iova, if any. O(log n).
  [[nodiscard]] std::optional<Mapping> find(Iova iova) const;
  // In the order of their iovas. The visitor must not map or unmap.
  void for_each_mapping(const std::function<void(const Mapping&)>& visitor) const;
  [[nodiscard]] const std::vector<std::string>& devices() const noexcept { return devices_; }

  // What the backend knows beyond the common limits, in words, for people: ("extension", "VFIO_TYPE1v2_IOMMU").
  using Facts = std::vector<std::pair<std::string, std::string>>;
  [[nodiscard]] virtual Facts facts() const = 0;

  // What only some backends can do; null where this one cannot. They live as long as the container.
  [[nodiscard]] virtual DmaWindows* dma_windows() noexcept { return nullptr; }
  [[nodiscard]] virtual Preregistration* preregistration() noexcept { return nullptr; }
  [[nodiscard]] virtual Eeh* eeh() noexcept { return nullptr; }
  [[nodiscard]] virtual DirtyTracker* dirty_tracker() noexcept { return nullptr; }
  [[nodiscard]] Kernel& kernel() const noexcept { return *kernel_; }

 protected:
  enum class WhenEmpty { keeps_mappings, forgets_mappings };

  // What is constant of a backend.
  struct Traits {
    std::string_view backend;
    std::string_view map;    // the ioctl that maps, as errors name it
    std::string_view unmap;  // the ioctl that unmaps
    WhenEmpty when_empty;    // what the kernel does with the mappings when the last device leaves
  };
  Container(Kernel& kernel, const Traits& traits);

  // Each gives 0 or a negated errno; do_unmap() gives 1 where the call succeeded, and unmapped nothing.
  [[nodiscard]] virtual int do_map(Iova iova, std::uint64_t length, void* address, Access access) = 0;
  [[nodiscard]] virtual int do_unmap(Iova iova, std::uint64_t length) = 0;  // one mapping
  // All that is mapped in the range, of which there may be none; a call that fails half way is made again.
  [[nodiscard]] virtual int do_unmap_several(IovaRange range) { return do_unmap(range.first, range.length()); }
  [[nodiscard]] virtual int do_unmap_all();  // one by one, unless there is a call for all
  // Brings the device in, and gives the fd it is driven through. On an error the container is as it was.
  [[nodiscard]] virtual Result<Fd> do_attach(const HostDevice& device) = 0;
  // The group that an attached device was opened through; null where it was opened by a node of its own.
  [[nodiscard]] virtual const Group* group_of(const std::string& /*device*/) const { return nullptr; }
  // Takes it out. The fd is closed by the backend when its kernel interface wants it so.
  [[nodiscard]] virtual Result<void> do_detach(const std::string& device, Fd fd) = 0;
  [[nodiscard]] virtual Result<void> do_close() = 0;
  [[nodiscard]] virtual Result<ContainerLimits> read_limits() = 0;
  // Why do_map() gave this errno, where the backend knows better than the common words; empty where it does not.
  struct Explanation {
    std::string reason;
    std::string remedy;
    std::optional<std::string_view> call = {};  // that failed, where it is not the one that maps; empty: none did
  };
  [[nodiscard]] virtual Explanation explain_map(int result, IovaRange range, const void* address) const;

  void set_limits(ContainerLimits limits);  // for a backend whose limits change while no device joins or leaves

 private:
  friend class Attachment;     // attaching and detaching go through the one owner of an attached device
  friend class DirtyTracker;   // unmaps in a way of its own
  friend class DmaBuffer;      // leaves it memory that could not be unmapped
  class POSTERN_LOCAL Errors;  // in words

  [[nodiscard]] Result<void> map_slowly(IovaRange range, std::span<std::byte> memory, Access access);
  [[nodiscard]] Result<void> map_latest();
  [[nodiscard]] Result<void> undo_latest(int result);
  [[nodiscard]] Result<void> unmap_several(IovaRange range, std::uint64_t length);
  [[nodiscard]] Result<void> check_unmap(IovaRange range, std::uint64_t length) const;
  [[nodiscard]] Result<void> unmap_by(IovaRange mapping, const std::function<int()>& unmap);
  [[nodiscard]] bool is_usable(IovaRange range);
  [[nodiscard]] Result<void> admit(const ContainerLimits& limits, const HostDevice& device);
  [[nodiscard]] Result<ContainerLimits> let_in(const HostDevice& device, int fd);
  [[nodiscard]] Result<Fd> attach(const HostDevice& device);
  [[nodiscard]] Result<void> detach(const std::string& device, Fd fd);

  Kernel* kernel_;
  Traits traits_;
  int process_;  // that made it; a child of fork(2) is another one
  ContainerLimits limits_;
  // What map() asks for first: the usable range that the last mapping was in, or one that nothing fits.
  IovaRange likely_range_;
  std::uint64_t mapping_limit_ = 0;   // limits_.mapping_limit, or all ones
  std::uint64_t misaligned_ = 0xfff;  // the bits that are clear in an aligned number
  std::unique_ptr<ShadowMap> mappings_;
  std::vector<std::string> devices_;
  std::vector<Mmap> left_behind_;  // memory that devices may still reach, and new ones will
  bool closed_ = false;
  bool kernel_has_mappings_ = true;  // false: the last device took them along; the shadow map has them for the next
};

}  // namespace postern
