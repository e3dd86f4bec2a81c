// SPDX-License-Identifier: Apache-2.0
// Spapr: the checks of vfio_iommu_spapr_tce.c, Linux 7.3, in the kernel's order and with its bugs, as measured. Here:
// groups, information, version 1's accounting, and EEH.
#include "sim/spapr/spapr.hpp"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <utility>

#include "sim/process/argument.hpp"

namespace postern::sim {
namespace {

// The last function that an error can be injected into (EEH_ERR_FUNC_MAX).
constexpr std::uint32_t last_error_function = 19;

// eeh_pe_inject_err, pnv_eeh_err_inject (Linux 7.3). QEMU's firmware injects only into config space, without any
// effect.
int inject_error(std::uint32_t type, std::uint32_t function) {
  if (function > last_error_function) return -EINVAL;
  if (type > 1) return -ERANGE;
  const bool is_config = function == 4 || function == 5 || function == 10 || function == 11;  // EEH_ERR_FUNC_*_CFG_*
  return is_config ? 0 : -EIO;
}

}  // namespace

Spapr::Spapr(Process& process, MmRegions& regions, TcePlatform& platform, ResetGroup reset_group, int version)
    : process_(process),
      regions_(regions),
      platform_(platform),
      reset_group_(std::move(reset_group)),
      is_v2_(version == 2) {}

// tce_iommu_release: a region that is mapped stays registered.
Spapr::~Spapr() {
  for (unsigned slot = 0; slot < tce_slots; ++slot) free_table(slot);
  for (MmRegion* region : registered_) (void)regions_.put(*region);
  disable();
}

int Spapr::check_extension(const TcePlatform& platform, unsigned long extension) {
  if (extension == VFIO_EEH) return platform.facts().has_eeh ? 1 : 0;
  return extension == VFIO_SPAPR_TCE_IOMMU || extension == VFIO_SPAPR_TCE_v2_IOMMU ? 1 : 0;
}

// tce_iommu_attach_group, tce_iommu_take_ownership
int Spapr::attach(int group) {
  if (!is_v2_ && !groups_.empty()) return -EBUSY;
  for (unsigned slot = 0; slot < tce_slots; ++slot) {
    if (!tables_[slot]) continue;
    const int result = platform_.set_window(group, slot, *tables_[slot]);
    if (result == 0) continue;
    for (unsigned taken = 0; taken < tce_slots; ++taken) platform_.unset_window(group, taken);
    return result;
  }
  if (groups_.empty() && !tables_[0]) default_window_pending_ = true;
  groups_.insert(groups_.begin(), group);
  return 0;
}

// tce_iommu_release_ownership: all mappings are removed for all groups, although only one leaves.
void Spapr::detach(int group) {
  std::erase(groups_, group);
  for (unsigned slot = 0; slot < tce_slots; ++slot) {
    if (!tables_[slot]) continue;
    clear(tables_[slot]->range());
    platform_.unset_window(group, slot);
  }
}

int Spapr::ioctl(unsigned long request, void* argument) {
  switch (request) {
    case VFIO_IOMMU_SPAPR_TCE_GET_INFO:
      return with_argument<vfio_iommu_spapr_tce_info>(process_, argument, offsetof(vfio_iommu_spapr_tce_info, ddw),
                                                      [this](auto& info) { return get_info(info); });
    case VFIO_IOMMU_MAP_DMA:
      if (!enabled_) return -EPERM;
      return with_argument<vfio_iommu_type1_dma_map>(process_, argument, sizeof(vfio_iommu_type1_dma_map),
                                                     [this](auto& wanted) { return map(wanted); });
    case VFIO_IOMMU_UNMAP_DMA:
      if (!enabled_) return -EPERM;
      return with_argument<vfio_iommu_type1_dma_unmap>(process_, argument, sizeof(vfio_iommu_type1_dma_unmap),
                                                       [this](auto& wanted) { return unmap(wanted); });
    case VFIO_EEH_PE_OP:
      if (!platform_.facts().has_eeh) return -ENODEV;
      return with_argument<vfio_eeh_pe_op>(process_, argument,
                                           offsetof(vfio_eeh_pe_op, op) + sizeof(vfio_eeh_pe_op::op),
                                           [this](auto& operation) { return eeh(operation); });
    default:
      return is_v2_ ? ioctl_of_v2(request, argument) : ioctl_of_v1(request);
  }
}

int Spapr::ioctl_of_v1(unsigned long request) {
  if (request == VFIO_IOMMU_ENABLE) return enable();
  if (request != VFIO_IOMMU_DISABLE) return -ENOTTY;
  disable();
  return 0;
}

// All but one of them bind the container to this process (tce_iommu_mm_set).
int Spapr::ioctl_of_v2(unsigned long request, void* argument) {
  switch (request) {
    case VFIO_IOMMU_SPAPR_REGISTER_MEMORY:
    case VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY: {
      const bool registers = request == VFIO_IOMMU_SPAPR_REGISTER_MEMORY;
      if (registers) knows_process_ = true;
      if (!knows_process_) return -EPERM;
      return with_argument<vfio_iommu_spapr_register_memory>(
          process_, argument, sizeof(vfio_iommu_spapr_register_memory), [&](auto& memory) {
            if (memory.argsz < sizeof memory || memory.flags != 0) return -EINVAL;
            return registers ? register_memory(memory.vaddr, memory.size)
                             : unregister_memory(memory.vaddr, memory.size);
          });
    }
    case VFIO_IOMMU_SPAPR_TCE_CREATE:
      knows_process_ = true;
      return with_argument<vfio_iommu_spapr_tce_create>(process_, argument, sizeof(vfio_iommu_spapr_tce_create),
                                                        [this](auto& wanted) { return create(wanted); });
    case VFIO_IOMMU_SPAPR_TCE_REMOVE:
      knows_process_ = true;
      return with_argument<vfio_iommu_spapr_tce_remove>(process_, argument, sizeof(vfio_iommu_spapr_tce_remove),
                                                        [this](auto& wanted) { return remove(wanted); });
    default:
      return -ENOTTY;
  }
}

int Spapr::get_info(vfio_iommu_spapr_tce_info& info) const {
  if (info.argsz < offsetof(vfio_iommu_spapr_tce_info, ddw)) return -EINVAL;
  const TcePlatform::Facts& facts = platform_.facts();
  info.flags = is_v2_ ? VFIO_IOMMU_SPAPR_INFO_DDW : 0;
  info.dma32_window_start = 0;
  info.dma32_window_size = facts.default_size;
  if (info.argsz < sizeof info) return 0;
  info.ddw = {};
  if (is_v2_) {
    info.ddw.pgsizes = facts.page_sizes;
    info.ddw.max_dynamic_windows_supported = tce_slots;
    info.ddw.levels = facts.levels;
  }
  return 0;
}

// tce_iommu_enable: the whole window counts as locked memory, mapped or not.
int Spapr::enable() {
  if (enabled_) return -EBUSY;
  knows_process_ = true;
  const std::uint64_t window = platform_.facts().default_size;
  if (const int result = process_.lock(window); result < 0) return result;
  locked_ = window;
  enabled_ = true;
  return 0;
}

void Spapr::disable() {
  if (!enabled_) return;
  enabled_ = false;
  process_.unlock(locked_);
}

// vfio_spapr_ioctl_eeh_pe_op, once for each group; nothing here ever freezes.
int Spapr::eeh(const vfio_eeh_pe_op& operation) {
  if (operation.argsz < offsetof(vfio_eeh_pe_op, op) + sizeof operation.op || operation.flags != 0) return -EINVAL;
  switch (operation.op) {
    case VFIO_EEH_PE_DISABLE:
    case VFIO_EEH_PE_ENABLE:
    case VFIO_EEH_PE_UNFREEZE_IO:
    case VFIO_EEH_PE_UNFREEZE_DMA:
    case VFIO_EEH_PE_RESET_DEACTIVATE:
    case VFIO_EEH_PE_CONFIGURE:
    case VFIO_EEH_PE_GET_STATE:
      static_assert(VFIO_EEH_PE_STATE_NORMAL == 0);
      return 0;
    case VFIO_EEH_PE_RESET_HOT:
    case VFIO_EEH_PE_RESET_FUNDAMENTAL:
      for (const int group : groups_) reset_group_(group);
      return 0;
    case VFIO_EEH_PE_INJECT_ERR:
      if (operation.argsz < offsetof(vfio_eeh_pe_op, err) + sizeof operation.err) return -EINVAL;
      return inject_error(operation.err.type, operation.err.func);
    default:
      return -EINVAL;
  }
}

}  // namespace postern::sim
