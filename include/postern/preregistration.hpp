// SPDX-License-Identifier: Apache-2.0
// Preregistration: memory that the kernel pins and accounts once, before it is mapped.
#pragma once

#include <cstddef>
#include <postern/export.hpp>
#include <postern/result.hpp>
#include <span>
#include <string_view>

namespace postern {

/// Registers memory with a container of the spapr backend, version 2 (container.get<Preregistration>()). All mapped
/// memory must be registered; map() registers unregistered memory for the lifetime of the mapping. Register memory in
/// advance if it is mapped and unmapped often or in many small pieces, such as a guest's RAM. Thread safety: as the
/// container.
class POSTERN_API Preregistration final {
 public:
  static constexpr std::string_view capability = "preregistration";  ///< for Container::get()

  /// Registers memory and pins it until remove(). The caller keeps ownership. Address and length are multiples of the
  /// host's page size. Kernel: VFIO_IOMMU_SPAPR_REGISTER_MEMORY. Errors: EINVAL (empty or unaligned), EOVERFLOW (runs
  /// past 2^64), EEXIST (overlaps registered memory), ENOMEM (locked memory: the error gives the amount needed), EFAULT
  /// (no such memory), ENODEV (no device is attached).
  [[nodiscard]] Result<void> add(std::span<std::byte> memory);

  /// Unregisters memory, with exactly the bounds passed to add(). Kernel: VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY. Errors:
  /// ENOENT (no registration has these bounds), EBUSY (part of it is mapped: the mapping is named; the kernel would
  /// accept the call and never release the memory), ENODEV (no device is attached).
  [[nodiscard]] Result<void> remove(std::span<std::byte> memory);

  class Impl;                                                      // for the library itself: what a backend implements
  explicit Preregistration(Impl& impl) noexcept : impl_(&impl) {}  ///< for the library itself

 private:
  Impl* impl_;
};

}  // namespace postern
