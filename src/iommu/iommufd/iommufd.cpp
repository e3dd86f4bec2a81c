// SPDX-License-Identifier: Apache-2.0
// Iommufd: an open /dev/iommu, and the objects in it by id.
#include "iommu/iommufd/iommufd.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <mutex>

#include "base/remedy.hpp"
#include "kernel/iommufd.hpp"

namespace postern::iommufd {
namespace {

// Memory for all types, one of which the driver fills in.
using HardwareInfo = std::array<std::byte, std::max(sizeof(iommu_hw_info_vtd), sizeof(iommu_hw_info_arm_smmuv3))>;

// Returns a bitmap of page sizes; 0 if they are not reported.
std::uint64_t page_sizes_of(const iommu_hw_info& told, const HardwareInfo& info) {
  constexpr std::uint64_t kib = 1024;
  constexpr std::uint64_t mib = 1024 * kib;
  if (told.out_data_type == IOMMU_HW_INFO_TYPE_INTEL_VTD && told.data_len >= sizeof(iommu_hw_info_vtd)) {
    iommu_hw_info_vtd vtd;
    std::memcpy(&vtd, info.data(), sizeof vtd);
    // VT-d specification, capability register: SLLPS, bits 34 and 35, are 2 MiB and 1 GiB second-stage pages.
    return 4 * kib | (vtd.cap_reg >> 34 & 1) * 2 * mib | (vtd.cap_reg >> 35 & 1) * 1024 * mib;
  }
  if (told.out_data_type == IOMMU_HW_INFO_TYPE_ARM_SMMUV3 && told.data_len >= sizeof(iommu_hw_info_arm_smmuv3)) {
    iommu_hw_info_arm_smmuv3 smmuv3;
    std::memcpy(&smmuv3, info.data(), sizeof smmuv3);
    // SMMUv3 specification, IDR5: granules of 4, 16 and 64 KiB are bits 4, 5 and 6. The kernel uses that of its own
    // page size if it exists (arm_lpae_restrict_pgsizes, Linux 7.3).
    const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    if (page == 4 * kib && (smmuv3.idr[5] >> 4 & 1) != 0) return 4 * kib | 2 * mib | 1024 * mib;
    if (page == 16 * kib && (smmuv3.idr[5] >> 5 & 1) != 0) return 16 * kib | 32 * mib;
    if (page == 64 * kib && (smmuv3.idr[5] >> 6 & 1) != 0) return 64 * kib | 512 * mib;
  }
  return 0;
}

Node iommufd() {
  return {.path = "/dev/iommu",
          .sysfs = "/sys/class/misc/iommu",
          .remedy = remedy<RemedyCode::load_module>("iommufd",
                                                    "version 6.6 and CONFIG_IOMMUFD, which Debian's kernels lack")};
}

// The open Iommufd of each kernel.
std::mutex opened_mutex;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables): of opened()
std::map<Kernel*, std::weak_ptr<Iommufd>>& opened() {
  static auto& all = *new std::map<Kernel*, std::weak_ptr<Iommufd>>;  // for the destructors of globals, too
  return all;
}
std::shared_ptr<Iommufd> find_opened(Kernel& kernel) {
  std::erase_if(opened(), [](const auto& entry) { return entry.second.expired(); });
  const auto found = opened().find(&kernel);
  auto iommufd = found == opened().end() ? nullptr : found->second.lock();
  return iommufd && iommufd->is_of_this_process() ? iommufd : nullptr;
}

}  // namespace

Result<NodeFd> Iommufd::probe(Kernel& kernel) {
  const std::lock_guard lock(opened_mutex);
  return find_opened(kernel) ? Result<NodeFd>() : open_node(kernel, iommufd(), "backend iommufd");
}

Result<std::shared_ptr<Iommufd>> Iommufd::shared(Kernel& kernel, NodeFd node) {
  const std::lock_guard lock(opened_mutex);
  if (auto found = find_opened(kernel)) return found;
  if (!node) {
    node = POSTERN_TRY(open_node(kernel, iommufd(), "container iommufd"));
  }
  auto made = std::make_shared<Iommufd>(std::move(node));
  opened()[&kernel] = made;
  return made;
}

Result<std::shared_ptr<Iommufd>> Iommufd::of(Kernel& kernel, const std::shared_ptr<const Fd>& given) {
  return std::make_shared<Iommufd>(POSTERN_TRY(open_node(kernel, iommufd(), "container iommufd", given)));
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
  // With EMSGSIZE the kernel reports their number, which devices that join at the same time can increase again.
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

LockedMemoryCounter Iommufd::counter() const {
  iommu_option option{.size = sizeof option,
                      .option_id = IOMMU_OPTION_RLIMIT_MODE,
                      .op = IOMMU_OPTION_OP_GET,
                      .__reserved = 0,
                      .object_id = 0,
                      .val64 = 0};
  const bool by_process = iommu::option(kernel(), fd(), option) == 0 && option.val64 == 1;
  return by_process ? LockedMemoryCounter::process : LockedMemoryCounter::user;
}

// An iommufd that is opened anew counts by user.
LockedMemoryCounter Iommufd::shared_counter(Kernel& kernel) {
  const std::lock_guard lock(opened_mutex);
  const auto opened = find_opened(kernel);
  return opened ? opened->counter() : LockedMemoryCounter::user;
}

Hardware Iommufd::hardware_of(ObjectId device) const {
  HardwareInfo info{};
  iommu_hw_info query{};
  query.size = sizeof query;
  query.dev_id = device;
  query.data_len = sizeof info;
  query.data_uptr = reinterpret_cast<std::uintptr_t>(&info);
  if (iommu::get_hw_info(kernel(), fd(), query) < 0) return {};
  return {.page_sizes = page_sizes_of(query, info),
          .tracks_dirty = (query.out_capabilities & IOMMU_HW_CAP_DIRTY_TRACKING) != 0};
}

Result<void> Iommufd::destroy(ObjectId id, std::string_view what) const {
  if (!is_of_this_process()) return {};
  iommu_destroy destroy{.size = sizeof destroy, .id = id};
  if (const int result = iommu::destroy(kernel(), fd(), destroy); result < 0) {
    return call_failure(iommu::destroy.symbol, {.result = result,
                                                .object = fmt::format("{} {}", what, id),
                                                .reason = result == -EBUSY ? "it is still in use" : ""});
  }
  return {};
}

Node node_of_iommufd(const Lookup& /*lookup*/) { return iommufd(); }

Result<std::string> find_iommufd_node(const Requirement& /*requirement*/, Lookup& lookup) {
  if (lookup.fd) {
    POSTERN_TRY(require_node(lookup.kernel, iommufd(), *lookup.fd, "backend iommufd"));
  } else {
    lookup.probed.node = POSTERN_TRY(Iommufd::probe(lookup.kernel));
  }
  return std::string();
}

}  // namespace postern::iommufd
