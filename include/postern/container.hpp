// SPDX-License-Identifier: Apache-2.0
// Container: an IOMMU address space and the devices attached to it.
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

/// An IOMMU address space, made by attach() or Backend::open(). Its public functions check arguments, keep the shadow
/// map and build errors; a backend implements the rest. Devices hold their container, so it outlives them. Thread
/// safety: one thread at a time; different containers may be used concurrently. A child of fork(2) may only destroy its
/// copy (docs/architecture.md).
class POSTERN_API Container {
 public:
  virtual ~Container();
  Container(const Container&) = delete;
  Container& operator=(const Container&) = delete;

  [[nodiscard]] std::string_view backend() const noexcept { return traits_.backend; }  ///< "type1", "spapr", "iommufd"

  /// Maps `memory` for the attached devices at `iova`. The caller keeps ownership; the memory is pinned until unmapped,
  /// and must not be freed before. Address, length and iova are multiples of the smallest page size. On an error
  /// nothing is mapped. Kernel: VFIO_IOMMU_MAP_DMA, IOMMU_IOAS_MAP. Errors: EINVAL (empty or unaligned), EOVERFLOW
  /// (runs past 2^64), ERANGE (outside the usable ranges, which are named), EEXIST (overlaps a mapping: both are
  /// named), ENOSPC (mapping limit), ENODEV (no device is attached), EBADF (closed), ENOMEM (locked memory: the error
  /// gives the amount needed), EFAULT (the memory does not exist or cannot be pinned for this access).
  [[nodiscard]] Result<void> map(Iova iova, std::span<std::byte> memory, Access access = Access::read_write);

  /// Unmaps the mappings in the range, which must contain each as a whole. Kernel: VFIO_IOMMU_UNMAP_DMA,
  /// IOMMU_IOAS_UNMAP. Errors: EINVAL (empty, unaligned, or splits a mapping, which is named), EOVERFLOW, ENOENT
  /// (nothing is mapped there), EBADF (closed).
  [[nodiscard]] Result<void> unmap(Iova iova, std::uint64_t length);

  /// Unmaps everything (VFIO_DMA_UNMAP_FLAG_ALL, IOMMU_IOAS_UNMAP, or one by one). Errors: EBADF, those of the ioctl.
  [[nodiscard]] Result<void> unmap_all();

  /// Unmaps everything and releases the kernel objects. Then all functions that return a Result fail with EBADF.
  /// Errors: EBUSY (devices are attached: they are named; nothing is done), those of the ioctls (may be retried).
  [[nodiscard]] Result<void> close();

  /// The ranges in which map() accepts iovas. All limits change when a device joins or leaves, or with DMA windows.
  [[nodiscard]] const std::vector<IovaRange>& usable_ranges() const noexcept { return limits_.usable_ranges; }
  [[nodiscard]] std::uint64_t page_sizes() const noexcept { return limits_.page_sizes; }  ///< bitmap
  [[nodiscard]] std::optional<std::uint64_t> mapping_limit() const noexcept { return limits_.mapping_limit; }
  [[nodiscard]] std::optional<std::uint64_t> mappings_left() const noexcept;  ///< missing: there is no limit
  [[nodiscard]] std::size_t mapping_count() const noexcept;
  /// Returns the mapping that contains this iova, if any. O(log n).
  [[nodiscard]] std::optional<Mapping> find(Iova iova) const;
  /// Visits the mappings in iova order. The visitor must not map or unmap.
  void for_each_mapping(const std::function<void(const Mapping&)>& visitor) const;
  [[nodiscard]] const std::vector<std::string>& devices() const noexcept { return devices_; }  ///< attached, by name

  using Facts = std::vector<std::pair<std::string, std::string>>;  ///< pairs of name and value
  /// Returns backend-specific properties as text, for display: ("extension", "VFIO_TYPE1v2_IOMMU").
  [[nodiscard]] virtual Facts facts() const = 0;

  // Optional capabilities: null if the backend does not support them. They live as long as the container.
  [[nodiscard]] virtual DmaWindows* dma_windows() noexcept { return nullptr; }           ///< spapr
  [[nodiscard]] virtual Preregistration* preregistration() noexcept { return nullptr; }  ///< spapr version 2
  [[nodiscard]] virtual Eeh* eeh() noexcept { return nullptr; }                     ///< spapr, if the platform has it
  [[nodiscard]] virtual DirtyTracker* dirty_tracker() noexcept { return nullptr; }  ///< type1 version 2, iommufd
  [[nodiscard]] Kernel& kernel() const noexcept { return *kernel_; }                ///< the kernel it was opened on

 protected:
  enum class WhenEmpty { keeps_mappings, forgets_mappings };

  struct Traits {  // constants of a backend
    std::string_view backend;
    std::string_view map;    // name of the map ioctl, for errors
    std::string_view unmap;  // name of the unmap ioctl
    WhenEmpty when_empty;    // what the kernel does with the mappings when the last device detaches
  };
  Container(Kernel& kernel, const Traits& traits);

  // These return 0 or a negated errno; do_unmap() returns 1 if the call succeeded but unmapped nothing.
  [[nodiscard]] virtual int do_map(Iova iova, std::uint64_t length, void* address, Access access) = 0;
  [[nodiscard]] virtual int do_unmap(Iova iova, std::uint64_t length) = 0;  // one mapping
  // Unmaps whatever the range contains, possibly nothing. Must be restartable after a partial failure.
  [[nodiscard]] virtual int do_unmap_several(IovaRange range) { return do_unmap(range.first, range.length()); }
  [[nodiscard]] virtual int do_unmap_all();  // by default one by one
  // Attaches the device and returns the fd that drives it. On an error the container is unchanged.
  [[nodiscard]] virtual Result<Fd> do_attach(const HostDevice& device) = 0;
  // The group that an attached device was opened through; null if it was opened by its cdev.
  [[nodiscard]] virtual const Group* group_of(const std::string& /*device*/) const { return nullptr; }
  // Detaches the device. Closes its fd at the point where the kernel interface requires it.
  [[nodiscard]] virtual Result<void> do_detach(const std::string& device, Fd fd) = 0;
  [[nodiscard]] virtual Result<void> do_close() = 0;
  [[nodiscard]] virtual Result<ContainerLimits> read_limits() = 0;
  // Explains an errno of do_map() where the backend knows more than the generic message; empty where it does not.
  struct Explanation {
    std::string reason;
    std::string remedy;
    std::optional<std::string_view> call = {};  // the failing call, if other than Traits::map; empty: none failed
  };
  [[nodiscard]] virtual Explanation explain_map(int result, IovaRange range, const void* address) const;

  void set_limits(ContainerLimits limits);  // for limits that change without an attach or detach

 private:
  friend class Attachment;     // the only caller of attach() and detach()
  friend class DirtyTracker;   // unmaps by its own call
  friend class DmaBuffer;      // leaves memory here that could not be unmapped
  class POSTERN_LOCAL Errors;  // builds error messages

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
  int process_;  // pid that made it; differs in a child of fork(2)
  ContainerLimits limits_;
  IovaRange likely_range_;            // cache: the usable range of the last map(); an empty one if none
  std::uint64_t mapping_limit_ = 0;   // limits_.mapping_limit, or all ones
  std::uint64_t misaligned_ = 0xfff;  // bits that are clear in an aligned number
  std::unique_ptr<ShadowMap> mappings_;
  std::vector<std::string> devices_;
  std::vector<Mmap> left_behind_;  // memory that could not be unmapped: devices may still reach it
  bool closed_ = false;
  bool kernel_has_mappings_ = true;  // false: lost with the last device; replayed from the shadow map for the next
};

}  // namespace postern
