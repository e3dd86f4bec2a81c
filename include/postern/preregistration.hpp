// SPDX-License-Identifier: Apache-2.0
// Preregistration: memory that the kernel pins and counts once, before it is mapped.
#pragma once

#include <cstddef>
#include <postern/export.hpp>
#include <postern/result.hpp>
#include <span>

namespace postern {

// What a container of the spapr backend (version 2) can do beside mapping (Container::preregistration()). Whatever is
// mapped must be registered; map() does it where nobody has, for as long as the mapping lasts. Memory that is mapped
// and unmapped often, or in many small pieces, is better registered once: a whole guest's RAM, for instance. Thread
// rules: those of the container.
class POSTERN_API Preregistration {
 public:
  virtual ~Preregistration() = default;

  // Address and length are multiples of the host's page. The memory stays the caller's, and is pinned until remove().
  // Kernel: VFIO_IOMMU_SPAPR_REGISTER_MEMORY. Errors: EINVAL (empty or unaligned), EEXIST (part of it is registered
  // already), ENOMEM (locked memory: how much is needed is said), EFAULT (no such memory), ENODEV (no device is
  // attached).
  [[nodiscard]] virtual Result<void> add(std::span<std::byte> memory) = 0;

  // Exactly what add() was given. Errors: ENOENT, EBUSY (part of it is mapped: the mapping is named. The kernel would
  // take the call, and never give the memory back).  Kernel: VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY.
  [[nodiscard]] virtual Result<void> remove(std::span<std::byte> memory) = 0;

 protected:
  Preregistration() = default;
  Preregistration(const Preregistration&) = default;
  Preregistration& operator=(const Preregistration&) = default;
};

}  // namespace postern
