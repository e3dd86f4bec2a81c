// SPDX-License-Identifier: Apache-2.0
// Iommufd: dispatches the ioctls of a simulated /dev/iommu, and handles objects of all kinds.
#include "sim/iommufd/iommufd.hpp"

#include <algorithm>
#include <cstring>

namespace postern::sim {
namespace {

// The ioctls of Linux 7.3 end here; earlier ones that are not simulated are answered as by a kernel without them.
constexpr unsigned last_command = 0x95;

// Existence and access rights of memory are per page.
bool is_on_one_page(std::uintptr_t address, std::size_t size) {
  return address / IoPagetable::page_size == (address + size - 1) / IoPagetable::page_size;
}

}  // namespace

// iommufd_destroy
int Iommufd::execute(iommu_destroy& command) {
  const auto found = objects_.find(command.id);
  if (found == objects_.end()) return -ENOENT;
  // A device has a user until it is unbound, an IOAS has its HWPTs, a HWPT its devices (iommufd_object_remove).
  if (std::holds_alternative<Device*>(found->second)) return -EBUSY;
  if (const Ioas* const ioas = std::get_if<Ioas>(&found->second)) {
    if (!ioas->hwpts.empty()) return -EBUSY;
    if (command.id == vfio_ioas_) vfio_ioas_ = 0;
    objects_.erase(found);
    return 0;
  }
  if (std::get<Hwpt>(found->second).devices != 0) return -EBUSY;
  drop_hwpt(command.id);
  return 0;
}

// iommufd_option
int Iommufd::execute(iommu_option& command) {
  if (command.__reserved != 0) return -EOPNOTSUPP;
  const bool is_get = command.op == IOMMU_OPTION_OP_GET;
  const bool is_set = command.op == IOMMU_OPTION_OP_SET;
  if (command.option_id == IOMMU_OPTION_RLIMIT_MODE) {
    // iommufd_option_rlimit_mode
    if (command.object_id != 0 || !(is_get || is_set)) return -EOPNOTSUPP;
    if (is_set && !process_.is_privileged()) return -EPERM;
    if (is_set && !objects_.empty()) return -EBUSY;
    if (is_set && command.val64 > 1) return -EINVAL;
    if (is_set) counts_by_process_ = command.val64 == 1;
    command.val64 = counts_by_process_ ? 1 : 0;
  } else if (command.option_id == IOMMU_OPTION_HUGE_PAGES) {
    // iommufd_ioas_option
    Ioas* const ioas = find<Ioas>(command.object_id);
    if (ioas == nullptr) return -ENOENT;
    if (!(is_get || is_set)) return -EOPNOTSUPP;
    if (is_set && command.val64 > 1) return -EINVAL;
    if (is_get) command.val64 = ioas->table.has_large_pages() ? 1 : 0;
    if (const int result = is_set ? ioas->table.set_large_pages(command.val64 == 1) : 0; result < 0) return result;
  } else {
    return -EOPNOTSUPP;
  }
  return respond(&command, sizeof command);
}

// iommufd_fops_ioctl
int Iommufd::ioctl(unsigned long request, void* argument) {
  const auto number = static_cast<unsigned>(_IOC_NR(request));
  if (number < IOMMUFD_CMD_BASE || number > last_command) return vfio_ioctl(request, argument);
  // One check suffices for most: writable memory is readable.
  const auto address = reinterpret_cast<std::uintptr_t>(argument);
  user_is_writable_ = process_.check_argument(address, sizeof user_size_, true) == 0;
  if (!user_is_writable_ && process_.check_argument(address, sizeof user_size_, false) < 0) return -EFAULT;
  user_ = static_cast<std::byte*>(argument);
  std::memcpy(&user_size_, user_, sizeof user_size_);
  switch (static_cast<std::uint32_t>(request)) {
    case IOMMU_DESTROY:
      return run<iommu_destroy>();
    case IOMMU_IOAS_ALLOC:
      return run<iommu_ioas_alloc>();
    case IOMMU_IOAS_ALLOW_IOVAS:
      return run<iommu_ioas_allow_iovas>();
    case IOMMU_IOAS_MAP_FILE:
      return run<iommu_ioas_map_file>();
    case IOMMU_IOAS_COPY:
      return run<iommu_ioas_copy>();
    case IOMMU_IOAS_IOVA_RANGES:
      return run<iommu_ioas_iova_ranges>();
    case IOMMU_IOAS_MAP:
      return run<iommu_ioas_map>();
    case IOMMU_IOAS_UNMAP:
      return run<iommu_ioas_unmap>();
    case IOMMU_IOAS_NOIOMMU_GET_PA:
      return run<iommu_ioas_noiommu_get_pa>();
    case IOMMU_OPTION:
      return run<iommu_option>();
    case IOMMU_VFIO_IOAS:
      return run<iommu_vfio_ioas>();
    case IOMMU_HWPT_ALLOC:
      return run<iommu_hwpt_alloc>(offsetof(iommu_hwpt_alloc, data_type));
    case IOMMU_GET_HW_INFO:
      return run<iommu_hw_info>(offsetof(iommu_hw_info, out_capabilities));
    case IOMMU_HWPT_SET_DIRTY_TRACKING:
      return run<iommu_hwpt_set_dirty_tracking>();
    case IOMMU_HWPT_GET_DIRTY_BITMAP:
      return run<iommu_hwpt_get_dirty_bitmap>();
    default:
      return -ENOTTY;
  }
}

// `least` is the size of the struct in the first kernel with this ioctl.
template <typename Command>
int Iommufd::run(std::size_t least) {
  if (user_size_ < least) return -EINVAL;
  Command command{};
  if (const int result = process_.copy_struct(&command, sizeof command, user_, user_size_); result < 0) return result;
  return execute(command);
}

// iommufd_ucmd_respond
int Iommufd::respond(const void* command, std::size_t size) {
  size = std::min<std::size_t>(size, user_size_);
  const auto address = reinterpret_cast<std::uintptr_t>(user_);
  const bool is_known = user_is_writable_ && is_on_one_page(address, size);
  if (!is_known && process_.check_argument(address, size, true) < 0) return -EFAULT;
  std::memcpy(user_, command, size);
  return 0;
}

// xa_alloc returns the lowest free id; XA_FLAGS_ALLOC1 skips 0.
Iommufd::Id Iommufd::free_id() const {
  Id id = 1;
  for (auto object = objects_.begin(); object != objects_.end() && object->first == id; ++object) ++id;
  return id;
}

Iommufd::~Iommufd() {
  for (auto& [id, object] : objects_) {
    if (Hwpt* const hwpt = std::get_if<Hwpt>(&object)) find<Ioas>(hwpt->ioas)->table.remove_domain(hwpt->domain);
  }
}

}  // namespace postern::sim
