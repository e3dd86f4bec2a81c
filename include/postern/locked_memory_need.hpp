// SPDX-License-Identifier: Apache-2.0
// LockedMemoryNeed: how much locked memory a backend counts for a layout and a set of devices, before anything is
// mapped.
#pragma once

#include <cstdint>
#include <postern/backend.hpp>
#include <postern/export.hpp>
#include <postern/host_device.hpp>
#include <postern/locked_memory.hpp>
#include <postern/mapping.hpp>
#include <postern/remedy.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

/// Whether the limit of locked memory leaves room for a need.
enum class LockedMemoryVerdict : std::uint8_t {
  allowed,    ///< it does
  uncertain,  ///< it may: the number of containers, or what other processes of this user have pinned, is not known
  refused,    ///< it does not: mapping fails with ENOMEM
};

/// What one backend counts as locked memory. Plain data; thread safety: as std::string.
struct POSTERN_API LockedMemoryNeed {
  std::string_view backend;                                    ///< its name
  std::uint32_t version = 0;                                   ///< interface version this applies to; 0: all
  LockedMemoryCounter counter = LockedMemoryCounter::process;  ///< what the kernel adds it to
  std::string what;                                            ///< what is counted, in words: "16 MiB to be mapped"
  std::uint64_t once = 0;  ///< bytes counted once, in however many containers they are mapped
  std::uint64_t each = 0;  ///< bytes counted for each container

  /// How many containers the devices need. Devices whose IOMMUs support the same mappings share one; whether they do
  /// shows only when they are attached. Devices of one group always share one. Exact if both numbers are equal.
  std::uint64_t containers_at_least = 1;
  std::uint64_t containers_at_most = 1;  ///< as above

  [[nodiscard]] std::uint64_t at_least() const noexcept;  ///< bytes in all, with as few containers as possible
  [[nodiscard]] std::uint64_t at_most() const noexcept;   ///< bytes in all, with as many containers as possible

  /// Compares the need with the limit. Assumes that all VmPin counts against its user.
  [[nodiscard]] LockedMemoryVerdict judge(const LockedMemory& memory) const noexcept;
};

/// Computes what a backend counts when so many bytes are mapped for these devices: one entry, or one for each group of
/// versions that count differently, the newest first; none for a version that cannot map as much. Without a device: for
/// one container. The kernel counts whole pages. It counts type1, and spapr version 1, for each container; iommufd for
/// each IOMMU_IOAS_MAP or MAP_FILE, by user or, with IOMMU_OPTION_RLIMIT_MODE, by process, but no copies, which
/// GuestMemory and AttachOptions::join make in further containers; spapr version 2 once, and the tables of DMA windows
/// for each container. Reads sysfs, and maps and opens nothing. A number beyond 2^64-1 is reported as 2^64-1.
/// Thread-safe. Errors: ENODEV (spapr: the size of the default DMA window is not in the device tree), those of reading
/// the device tree.
[[nodiscard]] POSTERN_API Result<std::vector<LockedMemoryNeed>> locked_memory_needed(
    Kernel& kernel, const Backend& backend, std::uint64_t bytes, std::span<const HostDevice> devices = {});

/// As above, for a layout. Memory that is mapped twice counts twice, except by address with spapr version 2. Dma-bufs
/// count nothing. BARs that are given by address count nothing either, but cannot be told from RAM here: leave them
/// out.
[[nodiscard]] POSTERN_API Result<std::vector<LockedMemoryNeed>> locked_memory_needed(
    Kernel& kernel, const Backend& backend, std::span<const Mapping> layout, std::span<const HostDevice> devices = {});

}  // namespace postern
