// SPDX-License-Identifier: Apache-2.0
// Backend: a host IOMMU interface on which containers are opened: "type1", "spapr" or "iommufd".
#pragma once

#include <memory>
#include <postern/container.hpp>
#include <postern/export.hpp>
#include <postern/fd.hpp>
#include <postern/host_device.hpp>
#include <postern/result.hpp>
#include <span>
#include <string_view>

namespace postern {

/// Whether the IOMMU may map with pages larger than its smallest.
enum class HugePages { use, avoid };

/// Options for a new container.
struct ContainerOptions {
  HugePages huge_pages = HugePages::use;  ///< avoid: supported by iommufd only (IOMMU_OPTION_HUGE_PAGES)
  std::uint32_t version = 0;              ///< kernel interface version, one of Backend::versions; 0: the newest
  std::uint64_t memory = 0;               ///< bytes to be mapped, if known: spapr creates a DMA window that fits
};

/// A host IOMMU interface. One constant per backend compiled in (POSTERN_BACKENDS).
struct Backend {
  std::string_view name;                    ///< "type1", "spapr", "iommufd"
  std::string_view summary;                 ///< one-line description
  std::span<const std::uint32_t> versions;  ///< selectable kernel interface versions, newest first; empty: none

  /// Checks whether this backend is usable: for this device, or for any device if null. Returns the node that was
  /// opened for the check, to be passed to open_at(), or an empty Fd if none was needed. The error gives the reason.
  /// EPERM: the kernel would refuse it for its interrupts (read_interrupt_isolation()), or a node may not be opened.
  Result<Fd> (*probe)(Kernel& kernel, const HostDevice* device);

  /// Opens an empty container on the node that probe() returned, or on a node of its own if `node` is empty.
  Result<std::shared_ptr<Container>> (*open_at)(Fd node, Kernel& kernel, const ContainerOptions& options);
  /// Opens an empty container on a node of its own.
  [[nodiscard]] Result<std::shared_ptr<Container>> open(Kernel& kernel, const ContainerOptions& options) const {
    return open_at(Fd(), kernel, options);
  }
};

/// Returns the backends of this build, in order of preference. Thread-safe.
[[nodiscard]] POSTERN_API std::span<const Backend* const> backends() noexcept;

/// Returns the names of all postern backends, including those not compiled in. Thread-safe.
[[nodiscard]] POSTERN_API std::span<const std::string_view> known_backends() noexcept;

/// Finds a backend by name. Thread-safe. Errors: EINVAL (no backend has this name: the error lists them), ENOSYS (not
/// compiled in).
[[nodiscard]] POSTERN_API Result<const Backend*> find_backend(std::string_view name);

/// Chooses the backend for a device: the named one, or for "auto" the first whose probe succeeds. A named backend never
/// falls back to another. Thread-safe. Errors: those of find_backend(); ENODEV (not available here; for "auto": no
/// backend is, and causes() has the error of each).
[[nodiscard]] POSTERN_API Result<const Backend*> choose_backend(Kernel& kernel, std::string_view name,
                                                                const HostDevice& device);

}  // namespace postern
