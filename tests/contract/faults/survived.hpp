// SPDX-License-Identifier: Apache-2.0
// The failures of kernel calls that the library tolerates on purpose, and why. It must return any other to the caller.
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

    Survival{"file_buffer", "VFIO_IOMMU_UNMAP_DMA", 0, "the same"},
    Survival{"file_buffer", "IOMMU_IOAS_UNMAP", 0, "the same"},

    // The kernel's errno for an object or feature that is absent.
    Survival{"", "IOMMU_IOAS_MAP_FILE", ENOTTY, "before Linux 6.14: the file is mapped by address"},
    Survival{"", "IOMMU_IOAS_COPY", ENOTTY, "the mapping is made anew"},
    Survival{"", "fcntl", EINVAL, "the file cannot be sealed (memfd_get_seals)"},
    Survival{"map_file", "mmap", EPERM, "for writing; it is mapped for reading"},
    Survival{"", "VFIO_DEVICE_GET_REGION_INFO", EINVAL, "no such region (vfio_pci_ioctl_get_region_info)"},
    Survival{"", "VFIO_DEVICE_GET_IRQ_INFO", EINVAL, "no such interrupt (vfio_pci_ioctl_get_irq_info)"},
    Survival{"disable_intx", "VFIO_DEVICE_SET_IRQS", EINVAL, "none is on (vfio_pci_set_intx_trigger)"},
    Survival{"disable_msi", "VFIO_DEVICE_SET_IRQS", EINVAL, "none is on (vfio_pci_set_msi_trigger)"},
    Survival{"disable_msix", "VFIO_DEVICE_SET_IRQS", EINVAL, "the same"},
    Survival{"interrupt_set", "VFIO_DEVICE_SET_IRQS", EINVAL, "the same"},
    Survival{"unmask_event", "VFIO_DEVICE_SET_IRQS", EINVAL, "the same"},
    Survival{"", "VFIO_DEVICE_FEATURE", 0, "a probe: the device does not log its writes"},
    Survival{"", "VFIO_CHECK_EXTENSION", 0, "VFIO_UNMAP_ALL and VFIO_EEH, which can be done without"},
    Survival{"", "VFIO_GROUP_UNSET_CONTAINER", EINVAL, "the kernel took it out itself (vfio_device_remove_group)"},
    Survival{"", "IOMMU_GET_HW_INFO", 0, "an IOMMU that tells nothing has no dirty bits, and no large pages"},
    Survival{"", "IOMMU_HWPT_ALLOC", ENOENT, "a mediated device is in no IOMMU group: it is put on the IOAS itself"},
    Survival{"", "IOMMU_HWPT_ALLOC", EOPNOTSUPP, "the same"},
    Survival{"unmap_all", "IOMMU_IOAS_UNMAP", ENOENT, "nothing is mapped any more (iommufd_ioas_unmap)"},
    Survival{"close", "IOMMU_IOAS_UNMAP", ENOENT, "the same"},
    Survival{"visit", "IOMMU_IOAS_UNMAP", ENOENT, "the same"},

    // Calls that are repeated or replaced by another.
    Survival{"", "IOMMU_IOAS_IOVA_RANGES", EMSGSIZE, "the kernel says that there are more"},
    Survival{"", "VFIO_DEVICE_ATTACH_IOMMUFD_PT", EINVAL, "another IOMMU: the device gets a page table of its own"},
    Survival{"hot_reset", "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", EAGAIN, "a device came meanwhile"},

    // The device is then untracked, and every page counts as written; its note says why.
    Survival{"start_tracking", "VFIO_IOMMU_GET_INFO", 0, "the probe of the log"},
    Survival{"join_the_tracked", "VFIO_IOMMU_GET_INFO", 0, "the probe of the log"},
    Survival{"guest_start_tracking", "VFIO_IOMMU_GET_INFO", 0, "the probe of the log"},

    // After the device has left: where a query fails, the worst case is assumed.
    Survival{"leave_the_tracked", "IOMMU_HWPT_GET_DIRTY_BITMAP", 0, "every page counts as written"},
    Survival{"leave_the_tracked", "VFIO_IOMMU_DIRTY_PAGES", 0, "every page counts as written"},
    Survival{"leave_the_tracked", "IOMMU_IOAS_IOVA_RANGES", 0, "usable is what was usable with the device"},
    Survival{"leave_the_tracked", "VFIO_IOMMU_GET_INFO", 0, "the same"},
    Survival{"detach_one_of_two", "IOMMU_IOAS_IOVA_RANGES", 0, "the same"},
    Survival{"detach_one_of_two", "VFIO_IOMMU_GET_INFO", 0, "the same"},

    // The device has moved; what it has left is let go by another try, or logged.
    Survival{"move", "IOMMU_DESTROY", 0, "its old page table"},
    Survival{"move_to_others", "IOMMU_DESTROY", 0, "the same"},
    Survival{"move_the_tracked", "IOMMU_DESTROY", 0, "the same"},
    Survival{"move_the_tracked", "IOMMU_HWPT_GET_DIRTY_BITMAP", 0, "every page counts as written"},

    Survival{"", "read", ENOENT, "sysfs does not have it"},

    // Optional facts: the reset method; whether a POWER host is bare metal (if unknown, the narrower rules of a
    // partition apply); whether a PC's interrupts are isolated (if unknown, nothing is refused).
    Survival{"reset", "read", 0, "it is not told"},
    Survival{"attach", "read", 0, "the kernel decides"},
    Survival{"attach_without_huge_pages", "read", 0, "the same"},
    Survival{"attach_for_much_memory", "read", 0, "the same"},
    Survival{"replay", "read", 0, "the same"},
    Survival{"guest_attach", "read", 0, "the same"},
    Survival{"guest_attach_apart", "read", 0, "the same"},
    Survival{"visit", "read", 0, "the same"},
    Survival{"hot_reset", "read", 0, "the kernel knows itself whose the device is"},
    // The device's IOMMU, needed to find out whether interrupts are isolated (if unknown, nothing is refused).
    Survival{"attach", "readlink", 0, "the kernel decides"},
    Survival{"attach_without_huge_pages", "readlink", 0, "the same"},
    Survival{"replay", "readlink", 0, "the same"},
    Survival{"guest_attach", "readlink", 0, "the same"},
    Survival{"guest_attach_apart", "readlink", 0, "the same"},
    Survival{"visit", "readlink", 0, "the same"},
    Survival{"hot_reset", "opendir", 0, "not needed for a reset"},
    Survival{"hot_reset", "readlink", 0, "the group, which the kernel tells, or a driver, which it knows itself"},
    Survival{"hot_reset", "stat", 0, "iommufd: the kernel knows itself whose the device is"},

    // sPAPR. Memory that could not be unregistered is retried with its next mapping, and released with the IOMMU.
    Survival{"unmap", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0, "it is unmapped, and stays registered"},
    Survival{"unmap_several", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0, "the same"},
    Survival{"unmap_all", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0, "the same"},
    Survival{"buffer", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0, "the same"},
    Survival{"file_buffer", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0, "the same"},
    Survival{"guest_change_registered", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0, "the same"},
    Survival{"guest_sparse", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0, "the same"},
    Survival{"unregister_memory", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", ENOENT, "it is not registered any more"},
    // tear_down(): the kernel does all of it when the last group leaves (tce_iommu_release).
    Survival{"detach", "VFIO_IOMMU_UNMAP_DMA", 0, "the IOMMU goes"},
    Survival{"detach", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0, "the IOMMU goes"},
    Survival{"detach", "VFIO_IOMMU_DISABLE", 0, "the IOMMU goes"},
    Survival{"visit", "VFIO_IOMMU_UNMAP_DMA", 0, "the IOMMU goes"},
    Survival{"visit", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0, "the IOMMU goes"},
    Survival{"visit", "VFIO_IOMMU_DISABLE", 0, "the IOMMU goes"},
};

// A failure whose message has other words than the call's name and its errno.
struct Translation {
  std::string_view scenario;  // empty: any
  std::string_view call;
  int code;                // 0: any
  std::string_view words;  // part of the message
};

inline constexpr std::array translations = {
    Translation{"", "VFIO_DEVICE_GET_REGION_INFO", EINVAL, "refused: EIO: it has no config space"},
    Translation{"hot_reset", "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", ENOSPC,
                "refused: EPROTO: VFIO_DEVICE_GET_PCI_HOT_RESET_INFO"},  // ENOSPC without a count
    Translation{"dma_buf", "IOMMU_IOAS_MAP_FILE", ENOTTY, "this dma-buf cannot be mapped into a process"},
    Translation{"hot_reset", "stat", ENOENT, "no longer there"},
    Translation{"hot_reset", "readlink", ENOENT, "bound to no driver"},
    Translation{"hot_reset", "opendir", ENOENT, "does not own"},  // no vfio-dev/: no VFIO driver has the device
    // The next map of it, in any container, may find that out.
    Translation{"guest_change_registered", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0, "SPAPR_REGISTER_MEMORY: E"},
    Translation{"guest_sparse", "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0, "SPAPR_REGISTER_MEMORY: E"},
    Translation{"bind", "readlink", ENOENT, "did not bind it"},
    Translation{"give_back", "readlink", ENOENT, "did not bind it"},
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

// Null if the message has the call's name and the errno.
[[nodiscard]] inline const Translation* find_translation(std::string_view scenario, std::string_view call, int code) {
  const auto* const found = std::find_if(translations.begin(), translations.end(),
                                         [&](const Translation& each) { return is_about(each, scenario, call, code); });
  return found != translations.end() ? found : nullptr;
}

}  // namespace postern::test
