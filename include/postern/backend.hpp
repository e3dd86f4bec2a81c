// SPDX-License-Identifier: Apache-2.0
// Backend: a host IOMMU interface on which containers are opened: "type1", "spapr" or "iommufd".
#pragma once

#include <cstdint>
#include <postern/container.hpp>
#include <postern/export.hpp>
#include <postern/host_device.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

struct BackendOps;

/// Something that a backend needs, as it was found. Thread safety: as std::string.
struct RequirementState {
  /// A name for programs: "container-node", "iommufd-node", "iommu", "iommu-group", "driver", "group-node", "cdev",
  /// "cdev-node", "interface" (what the backend is named after), "interrupt-isolation". What several backends need has
  /// the same key in each. A later version may add keys.
  std::string_view key;
  std::string title;          ///< what it is: "VFIO cdev", or the path of a node
  std::string node;           ///< path of the device node that must be there and accessible; empty if it is none
  bool is_of_device = false;  ///< needed of the device; otherwise of the host
  /// What was found, in a word that may be empty ("vfio0"), or the error that probe() would return, with its remedy.
  /// ErrorKind::not_bound: it appears when the device is bound to a VFIO driver.
  Result<std::string> found;
};

/// A host IOMMU interface. There is one constant per backend compiled in (POSTERN_BACKENDS); see backends().
struct POSTERN_API Backend {
  std::string_view name;                    ///< "type1", "spapr", "iommufd"
  std::string_view summary;                 ///< one-line description
  std::span<const std::uint32_t> versions;  ///< selectable kernel interface versions, newest first; empty: none
  const BackendOps* ops;                    ///< for the library itself

  /// Checks whether this backend is usable: for this device, or for any device if null. Thread-safe. The error gives
  /// the reason. EPERM: the kernel would refuse it for its interrupts (read_interrupt_isolation()), or a node may not
  /// be opened.
  [[nodiscard]] Result<void> probe(Kernel& kernel, const HostDevice* device) const;

  /// Checks every requirement, in the order of probe(), continuing after a failure; skips those that depend on a failed
  /// one. Opens each node and closes it again, since only that shows a device cgroup that forbids it; this opens no
  /// device. Thread-safe.
  [[nodiscard]] std::vector<RequirementState> requirements(Kernel& kernel, const HostDevice* device) const;
};

/// Returns the backends of this build, in order of preference. Thread-safe.
[[nodiscard]] POSTERN_API std::span<const Backend* const> backends() noexcept;

/// Returns the names of all postern backends, including those not compiled in. Thread-safe.
[[nodiscard]] POSTERN_API std::span<const std::string_view> known_backends() noexcept;

/// Returns the names of those backends, compiled in or not, whose interface kernels for this host's processor have.
/// Without /proc/cpuinfo, that is the processor of this build. Thread-safe. Errors: those of reading /proc/cpuinfo.
[[nodiscard]] POSTERN_API Result<std::span<const std::string_view>> backends_for_processor(Kernel& kernel);

/// Finds a backend by name. Thread-safe. Errors: EINVAL (no backend has this name: the error lists them), ENOSYS (not
/// compiled in).
[[nodiscard]] POSTERN_API Result<const Backend*> find_backend(std::string_view name);

/// Chooses the backend for a device: the named one, or for "auto" the first whose probe succeeds. A named backend never
/// falls back to another. Thread-safe. Errors: those of find_backend(); those of the named backend's probe; for "auto"
/// ENODEV (no backend can be used: causes() has the error of each, and kind() is the kind on which those that this host
/// has agree, else ErrorKind::unavailable).
[[nodiscard]] POSTERN_API Result<const Backend*> choose_backend(Kernel& kernel, std::string_view name,
                                                                const HostDevice& device);

}  // namespace postern
