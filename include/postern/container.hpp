// SPDX-License-Identifier: Apache-2.0
// Container: an IOMMU address space and the devices attached to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <postern/export.hpp>
#include <postern/fd.hpp>
#include <postern/host_device.hpp>
#include <postern/kernel.hpp>
#include <postern/mapping.hpp>
#include <postern/memory.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace postern {

class AddressSpace;
struct Backend;

/// Whether the IOMMU may map with pages larger than its smallest.
enum class HugePages { use, avoid };

/// Options for a new container.
struct ContainerOptions {
  HugePages huge_pages = HugePages::use;  ///< avoid: supported by iommufd only (IOMMU_OPTION_HUGE_PAGES)
  std::uint32_t version = 0;              ///< kernel interface version, one of Backend::versions; 0: the newest
  std::uint64_t memory = 0;               ///< bytes to be mapped, if known: spapr creates a DMA window that fits
  /// /dev/iommu for any number of containers, or /dev/vfio/vfio for one, opened elsewhere; null: the node is opened
  std::shared_ptr<const Fd> fd = {};
};

/// An IOMMU address space. attach() opens one with its first device; open() opens an empty one. Checks all arguments
/// before it asks the kernel, and keeps a record of every mapping. Devices hold their container, so it outlives them.
/// Thread safety: one thread at a time for all calls on a container, its capabilities, and attaching and detaching its
/// devices: lock a mutex around them if several threads make them (a debug build of the library returns EBUSY where
/// two meet). Meanwhile, other threads may use the attached devices, the mapped memory and other containers. In a child
/// of fork(2) all functions that return a Result fail with ESTALE; the child may only destroy its copy.
class POSTERN_API Container final {
 public:
  /// Opens an empty container. Nothing can be mapped until a device is attached to it (AttachOptions::container).
  /// Kernel: opens /dev/vfio/vfio or /dev/iommu. Errors: those of open(2); ENODEV (the kernel does not have this
  /// interface), EINVAL (the backend has no such version, or options.fd is another file), EBADF (options.fd is not
  /// open), EOPNOTSUPP (HugePages::avoid is not supported).
  [[nodiscard]] static Result<std::shared_ptr<Container>> open(Kernel& kernel, const Backend& backend,
                                                               const ContainerOptions& options = {});
  ~Container();
  Container(const Container&) = delete;
  Container& operator=(const Container&) = delete;

  [[nodiscard]] std::string_view backend() const noexcept;  ///< "type1", "spapr", "iommufd"
  [[nodiscard]] Kernel& kernel() const noexcept;            ///< the kernel it was opened on

  /// Maps `memory` for the attached devices at `iova`. The caller keeps ownership; the memory is pinned until unmapped,
  /// and must not be freed before. Address, length and iova are multiples of the smallest page size. On an error
  /// nothing is mapped. Kernel: VFIO_IOMMU_MAP_DMA, IOMMU_IOAS_MAP. Errors: EINVAL (empty, unaligned, or an Access of
  /// another value), EOVERFLOW (runs past 2^64), ERANGE (outside the usable ranges, which are named), EEXIST (overlaps
  /// a mapping: both are named), ENOSPC (mapping limit), ENODEV (no device is attached), EBADF (closed), ENOMEM (locked
  /// memory: the error gives the amount needed), EFAULT (the memory does not exist or cannot be pinned for this
  /// access).
  [[nodiscard]] Result<void> map(Iova iova, std::span<std::byte> memory, Access access = Access::read_write) {
    // Here, where the access is nearly always a constant: then it costs nothing.
    return is_valid(access) ? map_bytes(iova, memory, access) : refuse_access(iova, memory.size(), access);
  }

  /// As above, of any Memory. A file is mapped by IOMMU_IOAS_MAP_FILE (iommufd, Linux 6.14), else through a mmap(2)
  /// that the container keeps; it may be closed at once, and must not be truncated or hole-punched while it is mapped.
  /// Pages that fallocate(2) allocated but nobody has written are cleared first: the kernel would show devices their
  /// old contents. On an error, holes of the file within the memory are holes again (except huge pages): do not write
  /// to them meanwhile. Errors also: EINVAL (the file ends before the memory does; offset unaligned), EBADF (no file),
  /// EACCES (its descriptor is not open for this access), EPERM (it is sealed against writing), those of mmap(2).
  [[nodiscard]] Result<void> map(Iova iova, const Memory& memory, Access access = Access::read_write);

  /// Maps memory at an iova that the container chooses, and returns it: free, not 0, within the usable ranges and
  /// `within` (for devices that address fewer bits), and aligned to the largest page size of the IOMMU that the memory
  /// fills, if possible. O(log n) from one call to the next. Programs that choose iovas themselves use an
  /// IovaAllocator instead, which does not know of these mappings.
  /// Errors: ENOSPC (no free range is long enough), EINVAL (the last address of `within` is below its first), those of
  /// map().
  [[nodiscard]] Result<Iova> map_anywhere(const Memory& memory, Access access = Access::read_write,
                                          IovaRange within = {{0}, {~std::uint64_t{0}}});

  /// Unmaps the mappings in the range, which must contain each as a whole. Kernel: VFIO_IOMMU_UNMAP_DMA,
  /// IOMMU_IOAS_UNMAP. Errors: EINVAL (empty, unaligned, or splits a mapping, which is named), EOVERFLOW, ENOENT
  /// (nothing is mapped there), EBADF (closed).
  [[nodiscard]] Result<void> unmap(Iova iova, std::uint64_t length);

  /// Unmaps everything (VFIO_DMA_UNMAP_FLAG_ALL, IOMMU_IOAS_UNMAP, or one by one). Errors: EBADF, those of the ioctl.
  [[nodiscard]] Result<void> unmap_all();

  /// Unmaps everything and releases the kernel objects. Then all functions that return a Result fail with EBADF.
  /// Errors: EBUSY (devices are attached: they are named; nothing is done), those of the ioctls (may be retried).
  [[nodiscard]] Result<void> close();

  /// The ranges in which map() accepts iovas. All limits change when a device attaches or detaches, or with DMA
  /// windows.
  [[nodiscard]] const std::vector<IovaRange>& usable_ranges() const noexcept;
  [[nodiscard]] std::uint64_t page_sizes() const noexcept;  ///< bitmap
  /// The maximum number of mappings; missing: there is no limit.
  [[nodiscard]] std::optional<std::uint64_t> mapping_limit() const noexcept;
  [[nodiscard]] std::optional<std::uint64_t> mappings_left() const noexcept;  ///< missing: there is no limit
  [[nodiscard]] std::size_t mapping_count() const noexcept;                   ///< existing mappings
  /// Returns the mapping that contains this iova, if any. O(log n).
  [[nodiscard]] std::optional<Mapping> find(Iova iova) const;
  /// Visits the mappings in iova order. The visitor must not map or unmap.
  void for_each_mapping(const std::function<void(const Mapping&)>& visitor) const;
  /// Returns the attached devices, in the order in which they were attached, as sysfs had them then.
  [[nodiscard]] std::vector<HostDevice> devices() const;

  using Properties = std::vector<std::pair<std::string, std::string>>;  ///< pairs of name and value
  /// Returns backend-specific properties as text, for display: ("extension", "VFIO_TYPE1v2_IOMMU").
  [[nodiscard]] Properties properties() const;

  /// Returns an optional capability, or null if this container does not have it: container.get<DirtyTracker>().
  /// Capabilities: DirtyTracker (type1 version 2, iommufd), DmaWindows and Preregistration (spapr version 2), Eeh
  /// (spapr, if the platform has it). Lives as long as the container.
  template <typename Capability>
  [[nodiscard]] Capability* get() const noexcept {
    return static_cast<Capability*>(find_capability(Capability::capability));
  }
  /// As get(), with an error that names the missing capability. Errors: EOPNOTSUPP.
  template <typename Capability>
  [[nodiscard]] Result<Capability*> require() const {
    if (auto* const found = get<Capability>()) return found;
    return failure(missing(Capability::capability));
  }

  explicit Container(std::unique_ptr<AddressSpace> space) noexcept;       ///< for the library itself
  [[nodiscard]] AddressSpace& space() const noexcept { return *space_; }  ///< for the library itself

 private:
  [[nodiscard]] Result<void> map_bytes(Iova iova, std::span<std::byte> memory, Access access);
  [[nodiscard]] Result<void> refuse_access(Iova iova, std::uint64_t length, Access access) const;
  [[nodiscard]] void* find_capability(std::string_view name) const noexcept;
  [[nodiscard]] Error missing(std::string_view capability) const;

  std::unique_ptr<AddressSpace> space_;
};

}  // namespace postern
