// SPDX-License-Identifier: Apache-2.0
// Queries a device's regions and interrupts.
#include "device/region_info.hpp"

#include <fmt/format.h>

#include "kernel/info_buffer.hpp"
#include "kernel/vfio.hpp"

namespace postern {
namespace {

std::vector<RegionArea> parse_areas(const vfio_region_info_cap_sparse_mmap& capability, std::size_t available,
                                    std::uint64_t region_length) {
  const std::size_t room = (available - sizeof capability) / sizeof(vfio_region_sparse_mmap_area);
  std::vector<RegionArea> areas;
  for (std::size_t i = 0; i < capability.nr_areas && i < room; ++i) {
    const RegionArea area{.offset = capability.areas[i].offset, .length = capability.areas[i].size};
    if (area.length == 0 || area.offset >= region_length || area.length > region_length - area.offset) continue;
    areas.push_back(area);
  }
  return areas;
}

}  // namespace

Result<Region> read_region(DeviceIo& io, std::uint32_t index) {
  InfoBuffer<vfio_region_info> buffer;
  buffer.info().index = index;
  const int result = buffer.fetch([&](vfio_region_info& info) { return io.get_region_info(info); });
  Region region{.index = index};
  // The kernel's answer for a missing region: VGA of a device without it (vfio_pci_ioctl_get_region_info).
  if (result == -EINVAL || result == -ENODEV) return region;
  if (result < 0) {
    return call_failure(vfio::device_get_region_info.symbol,
                        {.result = result, .object = fmt::format("{} region {}", io.name(), index)});
  }
  const vfio_region_info& info = buffer.info();
  region.length = info.size;
  region.offset = info.offset;
  region.readable = (info.flags & VFIO_REGION_INFO_FLAG_READ) != 0;
  region.writable = (info.flags & VFIO_REGION_INFO_FLAG_WRITE) != 0;
  region.mappable = (info.flags & VFIO_REGION_INFO_FLAG_MMAP) != 0;

  bool sparse = false;
  const std::uint32_t chain = (info.flags & VFIO_REGION_INFO_FLAG_CAPS) != 0 ? info.cap_offset : 0;
  buffer.for_each_capability(chain, [&](const vfio_info_cap_header& header, std::size_t available) {
    switch (header.id) {
      case VFIO_REGION_INFO_CAP_SPARSE_MMAP:
        if (const auto* areas = capability_as<vfio_region_info_cap_sparse_mmap>(header, available)) {
          sparse = true;
          region.mappable_areas = parse_areas(*areas, available, region.length);
        }
        break;
      case VFIO_REGION_INFO_CAP_TYPE:
        if (const auto* type = capability_as<vfio_region_info_cap_type>(header, available)) {
          region.type = RegionType{.type = type->type, .subtype = type->subtype};
        }
        break;
      case VFIO_REGION_INFO_CAP_MSIX_MAPPABLE:
        region.msix_mappable = true;
        break;
      default:  // a capability of a newer kernel
        break;
    }
  });
  if (!region.mappable) region.mappable_areas.clear();
  if (region.mappable && !sparse && region.length > 0) region.mappable_areas = {{.offset = 0, .length = region.length}};
  return region;
}

Result<Interrupt> read_interrupt(DeviceIo& io, std::uint32_t index) {
  vfio_irq_info info{.argsz = sizeof info, .flags = 0, .index = index, .count = 0};
  const int result = io.get_irq_info(info);
  Interrupt interrupt{.index = index};
  // The kernel's answer for the error interrupt of a device that is not PCI Express (vfio_pci_ioctl_get_irq_info).
  if (result == -EINVAL || result == -ENODEV) return interrupt;
  if (result < 0) {
    return call_failure(vfio::device_get_irq_info.symbol,
                        {.result = result, .object = fmt::format("{} interrupt {}", io.name(), index)});
  }
  interrupt.count = info.count;
  interrupt.eventfd = (info.flags & VFIO_IRQ_INFO_EVENTFD) != 0;
  interrupt.maskable = (info.flags & VFIO_IRQ_INFO_MASKABLE) != 0;
  interrupt.automasked = (info.flags & VFIO_IRQ_INFO_AUTOMASKED) != 0;
  interrupt.resizable = (info.flags & VFIO_IRQ_INFO_NORESIZE) == 0;
  return interrupt;
}

}  // namespace postern
