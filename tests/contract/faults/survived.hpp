// SPDX-License-Identifier: Apache-2.0
// Which failures of kernel calls are survived on purpose, and why. Any other must be told to the caller.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>

namespace postern::test {

struct Survival {
  std::string_view scenario;  // empty: any
  std::string_view call;      // empty: any
  int code;                   // 0: any
  std::string_view reason;
};

inline constexpr std::array survivals = {
    Survival{"let_go", "", 0, "destructors log what they can tell nobody"},
    Survival{"buffer", "VFIO_IOMMU_UNMAP_DMA", 0, "the buffer's destructor: it stays mapped, and its iova taken"},
    Survival{"buffer", "IOMMU_IOAS_UNMAP", 0, "the same"},

    // How the kernel says that something is not there.
    Survival{"", "VFIO_DEVICE_GET_REGION_INFO", EINVAL, "no such region (vfio_pci_ioctl_get_region_info)"},
    Survival{"", "VFIO_DEVICE_GET_IRQ_INFO", EINVAL, "no such interrupt (vfio_pci_ioctl_get_irq_info)"},
    Survival{"disable_intx", "VFIO_DEVICE_SET_IRQS", EINVAL, "none is on (vfio_pci_set_intx_trigger)"},
    Survival{"disable_msi", "VFIO_DEVICE_SET_IRQS", EINVAL, "none is on (vfio_pci_set_msi_trigger)"},
    Survival{"disable_msix", "VFIO_DEVICE_SET_IRQS", EINVAL, "the same"},
    Survival{"", "VFIO_DEVICE_FEATURE", 0, "a probe: the device does not log its writes"},
    Survival{"", "VFIO_CHECK_EXTENSION", 0, "VFIO_UNMAP_ALL and VFIO_EEH, which can be done without"},
    Survival{"", "VFIO_GROUP_UNSET_CONTAINER", EINVAL, "the kernel took it out itself (vfio_device_remove_group)"},
    Survival{"", "IOMMU_GET_HW_INFO", 0, "an IOMMU that tells nothing has no dirty bits, and no large pages"},
    Survival{"", "IOMMU_HWPT_ALLOC", ENOENT, "a mediated device is in no IOMMU group: it is put on the IOAS itself"},
    Survival{"", "IOMMU_HWPT_ALLOC", EOPNOTSUPP, "the same"},
    Survival{"unmap_all", "IOMMU_IOAS_UNMAP", ENOENT, "nothing is mapped any more (iommufd_ioas_unmap)"},
    Survival{"close", "IOMMU_IOAS_UNMAP", ENOENT, "the same"},
    Survival{"visit", "IOMMU_IOAS_UNMAP", ENOENT, "the same"},

    // What is asked again, or another way.
    Survival{"", "IOMMU_IOAS_IOVA_RANGES", EMSGSIZE, "the kernel says that there are more"},
    Survival{"", "VFIO_DEVICE_ATTACH_IOMMUFD_PT", EINVAL, "another IOMMU: the device gets a page table of its own"},
    Survival{"hot_reset", "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", EAGAIN, "a device came meanwhile"},

    // Nobody tracks the device then, so that every page counts as written; its note says why.
    Survival{"start_tracking", "VFIO_IOMMU_GET_INFO", 0, "the probe of the log"},
    Survival{"join_the_tracked", "VFIO_IOMMU_GET_INFO", 0, "the probe of the log"},

    // After the device has left: what was not asked successfully is taken for the worst.
    Survival{"leave_the_tracked", "IOMMU_HWPT_GET_DIRTY_BITMAP", 0, "every page counts as written"},
    Survival{"leave_the_tracked", "VFIO_IOMMU_DIRTY_PAGES", 0, "every page counts as written"},
    Survival{"leave_the_tracked", "IOMMU_IOAS_IOVA_RANGES", 0, "usable is what was usable with the device"},
    Survival{"leave_the_tracked", "VFIO_IOMMU_GET_INFO", 0, "the same"},
    Survival{"detach_one_of_two", "IOMMU_IOAS_IOVA_RANGES", 0, "the same"},
    Survival{"detach_one_of_two", "VFIO_IOMMU_GET_INFO", 0, "the same"},

    // Facts that can be done without: a driver_override, the way of a reset, whether a POWER host is the bare machine
    // (it is held to the narrower rules of a partition then).
    Survival{"", "read", 0, "it is not told"},
    // Which IOMMU a device has, of whose interrupts "cannot tell" refuses nothing.
    Survival{"attach", "readlink", 0, "all IOMMUs are looked at"},
    Survival{"attach_without_huge_pages", "readlink", 0, "the same"},
    Survival{"replay", "readlink", 0, "the same"},
    Survival{"visit", "readlink", 0, "the same"},
    Survival{"hot_reset", "opendir", 0, "not needed for a reset"},
    Survival{"hot_reset", "readlink", 0, "the group, which the kernel tells, or a driver, which it knows itself"},
    Survival{"hot_reset", "stat", 0, "iommufd: the kernel knows itself whose the device is"},

    // sPAPR. What is refused to be unregistered is tried again with the next mapping of it, and goes with the IOMMU.
    Survival{"unmap", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0, "it is unmapped, and stays registered"},
    Survival{"unmap_several", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0, "the same"},
    Survival{"unmap_all", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0, "the same"},
    Survival{"buffer", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0, "the same"},
    Survival{"unregister_memory", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", ENOENT, "it is not registered any more"},
    // tear_down(): the kernel does it all itself when the last group leaves (tce_iommu_release).
    Survival{"detach", "VFIO_IOMMU_UNMAP_DMA", 0, "the IOMMU goes"},
    Survival{"detach", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0, "the IOMMU goes"},
    Survival{"detach", "VFIO_IOMMU_DISABLE", 0, "the IOMMU goes"},
    Survival{"visit", "VFIO_IOMMU_UNMAP_DMA", 0, "the IOMMU goes"},
    Survival{"visit", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0, "the IOMMU goes"},
    Survival{"visit", "VFIO_IOMMU_DISABLE", 0, "the IOMMU goes"},
};

// A failure that is told in other words than the call's name and its errno.
struct Translation {
  std::string_view scenario;  // empty: any
  std::string_view call;
  int code;                // 0: any
  std::string_view words;  // that are in the message
};

inline constexpr std::array translations = {
    Translation{"", "VFIO_DEVICE_GET_REGION_INFO", EINVAL, "refused: EIO: it has no config space"},
    Translation{"hot_reset", "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", ENOSPC,
                "refused: EPROTO: VFIO_DEVICE_GET_PCI_HOT_RESET_INFO"},  // ENOSPC without a count
    Translation{"hot_reset", "stat", ENOENT, "no longer there"},
    Translation{"hot_reset", "readlink", 0, "bound to no driver"},
    Translation{"hot_reset", "opendir", ENOENT, "not ours"},  // no vfio-dev/: no VFIO driver has the device
    Translation{"bind", "stat", ENOENT, "has no driver"},
    Translation{"bind", "readlink", ENOENT, "has not taken it"},
    Translation{"give_back", "stat", ENOENT, "has no driver"},
    Translation{"give_back", "readlink", ENOENT, "has not taken it"},
};

template <typename Entry>
[[nodiscard]] bool is_about(const Entry& entry, std::string_view scenario, std::string_view call, int code) {
  return (entry.scenario.empty() || entry.scenario == scenario) && (entry.call.empty() || entry.call == call) &&
         (entry.code == 0 || entry.code == code);
}

[[nodiscard]] inline bool is_survived(std::string_view scenario, std::string_view call, int code) {
  return std::any_of(survivals.begin(), survivals.end(),
                     [&](const Survival& each) { return is_about(each, scenario, call, code); });
}

// Null where it is told by the call's name and the errno.
[[nodiscard]] inline const Translation* find_translation(std::string_view scenario, std::string_view call, int code) {
  const auto* const found = std::find_if(translations.begin(), translations.end(),
                                         [&](const Translation& each) { return is_about(each, scenario, call, code); });
  return found != translations.end() ? found : nullptr;
}

}  // namespace postern::test
