// SPDX-License-Identifier: Apache-2.0
// RemedyCode: what to do about an error, as a number that a program can switch on.
#pragma once

#include <cstdint>
#include <postern/export.hpp>
#include <string_view>

namespace postern {

/// What to do about an error. The comments list the arguments of a Remedy with this code. docs/errors.md has an
/// overview.
enum class RemedyCode : std::uint8_t {
  other,  ///< the text: advice without a code of its own, for drivers and programs that use the library
  // Any call
  try_again,
  run_as_root,
  see_kernel_log,
  see_causes,   ///< the device: each cause has a remedy of its own
  find_holder,  ///< the files that somebody has open
  raise_open_files_limit,
  raise_locked_memory_limit,
  raise_locked_memory_limit_to,  ///< KiB
  reserve_huge_pages,
  use_existing_huge_page_size,
  mount_proc,
  make_event_nonblocking,
  // The host's IOMMU
  remove_kernel_parameter,       ///< the parameter
  remove_kernel_parameter_word,  ///< the word, the parameter that contains it
  boot_with_intel_iommu,
  see_log_for_iommu,         ///< the IOMMU, the arguments of grep(1)
  turn_iommu_on,             ///< the IOMMU
  turn_vtd_on_without_dmar,  ///< the firmware has no DMAR table
  describe_iommu,
  use_kernel_with_iommu_driver,  ///< what has an IOMMU, the kernel option of its driver
  pass_through_with_xen,
  use_host_without_xen,
  use_host_with_iommu,  ///< what this machine is, what to use instead
  give_guest_iommu,     ///< how, for its hypervisor
  try_another_slot,     ///< the device
  turn_remapping_on,
  turn_remapping_on_in_vm,
  turn_remapping_on_in_firmware,
  accept_unsafe_interrupts,  ///< the file of the module parameter
  // Drivers, modules and nodes
  list_devices,
  bind_to_vfio_driver,  ///< the device
  bind_if_spare,        ///< the device, if the host can spare it
  bind_whole_group,     ///< the device; which members is said by bind_to_vfio_driver behind it
  use_slot_with_acs,
  keep_driver,             ///< the device that must keep its driver, why
  load_driver,             ///< the driver
  load_module,             ///< the module, the kernel that has it
  bind_for_node,           ///< the kernel option that the node needs
  add_node,                ///< where sysfs shows it, its path
  make_node,               ///< path, major and minor number
  make_node_and_folder,    ///< folder, path, major and minor number
  give_node_to_user,       ///< the user, the node
  allow_in_device_cgroup,  ///< the node
  refresh_node,            ///< the node, which may be stale
  give_fd_of_node,         ///< the node
  read_device_again,       ///< the device, which has changed since it was read
  use_kernel_with_cdevs,
  use_kernel_with_option,  ///< the kernel option
  adopt_kvm_device,
  make_sysfs_writable,
  make_run_writable,
  stop_other_binder,
  discard_binding,
  use_devices_behind_bridge,
  wake_device,  ///< its directory in sysfs
  write_pci_address,
  write_vf_token,
  give_vf_token,
  omit_vf_token,
  // Backends and containers
  use_backend,  ///< the names to choose from
  use_other_backend,
  build_all_backends,  ///< the names to choose from otherwise
  omit_version,
  attach_device_first,
  attach_to_new_container,
  attach_to_that_container,
  attach_there_or_detach_group,
  attach_anew,
  open_container_in_this_process,
  detach_first,
  detach_devices_first,
  detach_group_mate,  ///< the other device of its group
  use_one_thread,
  keep_fds_private,
  give_container_own_fd,
  give_iommufd_of_device,
  open_both_with_one_iommufd,
  omit_iommufd_id,
  attach_with_its_iommufd,
  use_iommufd_or_disable_huge_pages,
  // Mappings and memory
  unmap_first,
  unmap_whole_mappings,
  align_mapping,  ///< what the memory starts at: "address" or "offset"
  choose_usable_iova,
  allow_more_mappings,
  map_accessible_memory,
  map_bar_as_dma_buf,
  map_smaller_pieces,
  map_fewer_ranges,
  map_file_by_address,
  map_file_of_memory,
  map_bar_by_address,
  turn_bar_on,
  map_read_only,
  map_for_direction,
  extend_file,
  open_file_for_reading,
  open_file_for_reading_and_writing,
  use_page_multiples,  ///< the page
  free_iovas,
  stay_in_usable_range,
  place_guest_memory_in_ranges,
  let_allocator_choose,
  free_once,
  begin_transaction,
  end_transaction,
  // Dirty tracking
  start_tracking,
  stop_tracking,
  omit_dirty_source,
  query_mapped_ranges,
  // DMA windows and registered memory of POWER
  turn_dma_windows_on,
  boot_for_dma_windows,
  create_window,
  create_window_with_page_size,
  create_smaller_window,
  choose_window_page_size,
  choose_window_size,  ///< the size
  omit_window_levels,  ///< the number of levels that are then used
  remove_window,
  remove_default_window,
  remove_64bit_window,
  map_in_default_window,
  use_spapr_version_2,
  use_hugetlb_memory,
  register_before_mapping,
  register_in_both_containers,
  // Devices
  attach_again,
  attach_too,  ///< the other device
  detach_if_requested,
  reset_function,
  read_reset_set_again,
  reset_and_open_again,  ///< the device
  open_again,
  turn_machine_off_and_on,
  destroy_other_owner,
  find_bar_holder,  ///< the device
  use_read_and_write,
  use_interrupt_set,
  enable_interrupts_together,
  enable_interrupt_first,
  enable_interrupts_again,
  enable_instead_of_notifying,
  turn_vectors_off,  ///< the function that does
  disable_instead_of_masking,
};

/// Returns the code's name: "bind_to_vfio_driver".
[[nodiscard]] POSTERN_API std::string_view to_string(RemedyCode code) noexcept;

}  // namespace postern
