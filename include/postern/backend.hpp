// SPDX-License-Identifier: Apache-2.0
// Backend: a host IOMMU interface that containers can be opened on: "type1", "spapr", "iommufd".
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

// Whether the IOMMU may use pages larger than the smallest one.
enum class HugePages { use, avoid };

struct ContainerOptions {
  HugePages huge_pages = HugePages::use;  // avoid: iommufd alone can (IOMMU_OPTION_HUGE_PAGES)
  std::uint32_t version = 0;              // of the kernel's interface, one of Backend::versions; 0: the newest it has
  std::uint64_t memory = 0;               // bytes that will be mapped, where known: spapr makes a DMA window that fits
};

// A constant; which of them exist is chosen at build time (POSTERN_BACKENDS).
struct Backend {
  std::string_view name;
  std::string_view summary;  // one line for people
  std::span<const std::uint32_t>
      versions;  // of the kernel's interface that a container can be made to use, newest first

  // Whether this backend can be used here: by this device or, without one, by any. The error says why not. Gives the
  // node that had to be opened to find that out, for open_at(); none where nothing had to.
  Result<Fd> (*probe)(Kernel& kernel, const HostDevice* device);

  // A container with no device in it yet: on the node that probe() gave, or without one on a node of its own.
  Result<std::shared_ptr<Container>> (*open_at)(Fd node, Kernel& kernel, const ContainerOptions& options);
  [[nodiscard]] Result<std::shared_ptr<Container>> open(Kernel& kernel, const ContainerOptions& options) const {
    return open_at(Fd(), kernel, options);
  }
};

// What follows is for any thread.

// The backends of this build, in order of preference.
[[nodiscard]] POSTERN_API std::span<const Backend* const> backends() noexcept;

// The names of all backends that postern has, in this build or not.
[[nodiscard]] POSTERN_API std::span<const std::string_view> known_backends() noexcept;

// Errors: EINVAL (no backend has this name: they are listed), ENOSYS (it is not in this build).
[[nodiscard]] POSTERN_API Result<const Backend*> find_backend(std::string_view name);

// The backend to use for this device: the one of that name, or for "auto" the first whose probe succeeds. A name never
// falls back to another. Errors: as find_backend(), and ENODEV (not available here; for "auto": none is, and causes()
// has the refusal of each).
[[nodiscard]] POSTERN_API Result<const Backend*> choose_backend(Kernel& kernel, std::string_view name,
                                                                const HostDevice& device);

}  // namespace postern
