// SPDX-License-Identifier: Apache-2.0
// Iommufd: an open /dev/iommu, and the objects in it by id.
#include "iommu/iommufd/iommufd.hpp"

#include <fmt/format.h>

#include <map>
#include <mutex>

#include "iommu/node.hpp"
#include "kernel/iommufd.hpp"

namespace postern::iommufd {

Result<std::shared_ptr<Iommufd>> Iommufd::shared(Kernel& kernel) {
  static std::mutex mutex;
  static std::map<Kernel*, std::weak_ptr<Iommufd>> open;
  const std::lock_guard lock(mutex);
  std::erase_if(open, [](const auto& entry) { return entry.second.expired(); });
  if (auto found = open[&kernel].lock()) return found;
  auto fd = open_node(kernel, path, "container iommufd", missing);
  if (!fd) return failure_of(fd);
  auto made = std::make_shared<Iommufd>(std::move(*fd));
  open[&kernel] = made;
  return made;
}

Result<ObjectId> Iommufd::allocate_ioas() const {
  iommu_ioas_alloc alloc{.size = sizeof alloc, .flags = 0, .out_ioas_id = 0};
  if (const int result = iommu::ioas_alloc(kernel(), fd(), alloc); result < 0) {
    return call_failure(iommu::ioas_alloc.symbol, {.result = result, .object = "container iommufd"});
  }
  return alloc.out_ioas_id;
}

Result<IovaLimits> Iommufd::iova_limits(ObjectId ioas) const {
  std::vector<iommu_iova_range> ranges(16);
  iommu_ioas_iova_ranges query{};
  int result = 0;
  // EMSGSIZE tells how many there are; devices that join at the same time can make them more once again.
  for (int tries = 0; tries < 8; ++tries) {
    query = {.size = sizeof query,
             .ioas_id = ioas,
             .num_iovas = static_cast<std::uint32_t>(ranges.size()),
             .__reserved = 0,
             .allowed_iovas = reinterpret_cast<std::uintptr_t>(ranges.data()),
             .out_iova_alignment = 0};
    result = iommu::ioas_iova_ranges(kernel(), fd(), query);
    if (result != -EMSGSIZE) break;
    constexpr std::uint32_t most = 1 << 16;
    ranges.resize(std::min(query.num_iovas, most));
  }
  if (result < 0) {
    return call_failure(iommu::ioas_iova_ranges.symbol, {.result = result, .object = fmt::format("IOAS {}", ioas)});
  }
  IovaLimits limits{.ranges = {}, .alignment = query.out_iova_alignment};
  for (std::size_t i = 0; i < query.num_iovas && i < ranges.size(); ++i) {
    if (ranges[i].start <= ranges[i].last) limits.ranges.push_back({{ranges[i].start}, {ranges[i].last}});
  }
  return limits;
}

Result<void> Iommufd::avoid_huge_pages(ObjectId ioas) const {
  iommu_option option{.size = sizeof option,
                      .option_id = IOMMU_OPTION_HUGE_PAGES,
                      .op = IOMMU_OPTION_OP_SET,
                      .__reserved = 0,
                      .object_id = ioas,
                      .val64 = 0};
  if (const int result = iommu::option(kernel(), fd(), option); result < 0) {
    return call_failure(iommu::option.symbol,
                        {.result = result, .object = fmt::format("IOMMU_OPTION_HUGE_PAGES of IOAS {}", ioas)});
  }
  return {};
}

Hardware Iommufd::hardware_of(ObjectId device) const {
  iommu_hw_info_vtd vtd{};
  iommu_hw_info query{};
  query.size = sizeof query;
  query.dev_id = device;
  query.data_len = sizeof vtd;
  query.data_uptr = reinterpret_cast<std::uintptr_t>(&vtd);
  Hardware hardware;
  if (iommu::get_hw_info(kernel(), fd(), query) < 0) return hardware;
  hardware.tracks_dirty = (query.out_capabilities & IOMMU_HW_CAP_DIRTY_TRACKING) != 0;
  if (query.out_data_type != IOMMU_HW_INFO_TYPE_INTEL_VTD || query.data_len < sizeof vtd) return hardware;
  // VT-d specification, capability register: SLLPS, bits 34 and 35, are 2 MiB and 1 GiB second-stage pages.
  hardware.page_sizes = 1 << 12;
  if ((vtd.cap_reg >> 34 & 1) != 0) hardware.page_sizes |= 1 << 21;
  if ((vtd.cap_reg >> 35 & 1) != 0) hardware.page_sizes |= 1 << 30;
  return hardware;
}

Result<void> Iommufd::destroy(ObjectId id, std::string_view what) const {
  iommu_destroy destroy{.size = sizeof destroy, .id = id};
  if (const int result = iommu::destroy(kernel(), fd(), destroy); result < 0) {
    return call_failure(iommu::destroy.symbol, {.result = result,
                                                .object = fmt::format("{} {}", what, id),
                                                .reason = result == -EBUSY ? "something still uses it" : ""});
  }
  return {};
}

}  // namespace postern::iommufd
