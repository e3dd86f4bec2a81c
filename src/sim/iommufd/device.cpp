// SPDX-License-Identifier: Apache-2.0
// Iommufd: devices, which are bound by their cdevs, and attached to a HWPT one group at a time.
#include <algorithm>
#include <cerrno>
#include <limits>

#include "sim/iommufd/iommufd.hpp"

namespace postern::sim {

// iommufd_device_bind. VFIO checks the viability and the owner of the group.
int Iommufd::bind(Device& device, std::uint32_t& id) {
  if (id_of(device) != 0) return -EINVAL;  // vfio_df_open
  id = free_id();
  objects_.emplace(id, &device);
  if (const Attached* const group = attached(id)) device.domain = find<Hwpt>(group->hwpt)->domain;
  return 0;
}

// vfio_iommufd_physical_unbind
void Iommufd::unbind(Device& device) {
  detach(device);
  const Id id = id_of(device);
  if (id == 0) return;
  objects_.erase(id);
  device.domain = nullptr;
}

// vfio_iommufd_physical_attach_ioas, iommufd_device_change_pt
int Iommufd::attach(Device& device, std::uint32_t& page_table) {
  const Id id = id_of(device);
  if (id == 0) return -EINVAL;
  const auto found = objects_.find(page_table);
  if (found == objects_.end()) return -ENOENT;
  if (std::holds_alternative<Ioas>(found->second)) return attach_automatically(id, page_table, page_table);
  return std::holds_alternative<Hwpt>(found->second) ? attach_hwpt(id, page_table) : -EINVAL;
}

// iommufd_device_detach
void Iommufd::detach(Device& device) {
  const Id id = id_of(device);
  if (id != 0 && is_attached(id)) put_hwpt(leave(id));
}

// vfio_iommufd_physical_pasid_attach_ioas. No page table here supports PASIDs (iommufd_hwpt_pasid_compat), so only the
// checks before that return other errors: an invalid PASID (ida_alloc_range), and an unknown id.
int Iommufd::attach_pasid(std::uint32_t pasid, std::uint32_t page_table) const {
  if (pasid > std::uint32_t{std::numeric_limits<std::int32_t>::max()}) return -ENOSPC;
  return objects_.contains(page_table) ? -EINVAL : -ENOENT;
}

// iommufd_device_auto_get_domain: the HWPT created for another device of the IOAS, or a new one.
int Iommufd::attach_automatically(Id device, Id ioas, Id& page_table) {
  Ioas& owner = *find<Ioas>(ioas);
  for (const Id id : owner.hwpts) {
    if (!find<Hwpt>(id)->is_automatic) continue;
    const int result = attach_hwpt(device, id);
    if (result == -EINVAL) continue;
    if (result == 0) page_table = id;
    return result;
  }
  const bool replaces = is_attached(device);
  const Id id = make_hwpt(ioas, device_of(device));
  Hwpt& hwpt = *find<Hwpt>(id);
  int result = replaces ? 0 : enter(device, id);  // "immediate_attach" happens before memory is pinned
  if (result == 0) {
    result = show(id);
    if (result < 0 && !replaces) leave(device);
  }
  if (result == 0 && replaces) result = move(device, id);
  if (result < 0) {
    drop_hwpt(id);
    return result;
  }
  hwpt.is_automatic = true;
  page_table = id;
  return 0;
}

int Iommufd::attach_hwpt(Id device, Id hwpt) { return is_attached(device) ? move(device, hwpt) : enter(device, hwpt); }

// iommufd_hw_pagetable_attach: the first device attaches its whole group.
int Iommufd::enter(Id device, Id hwpt) {
  const Attached* const before = attached(device);
  if (before != nullptr && before->hwpt != hwpt) return -EINVAL;
  if (!is_compatible(hwpt, device)) return -EINVAL;
  if (const int result = reserve(ioas_of(hwpt), device); result < 0) return result;
  const int group = device_of(device).group();
  groups_[group].hwpt = hwpt;
  groups_[group].devices.insert(device);
  find<Hwpt>(hwpt)->devices += 1;
  set_domain(group, find<Hwpt>(hwpt)->domain);
  return 0;
}

// iommufd_device_do_replace: moves the whole group.
int Iommufd::move(Id device, Id hwpt) {
  Attached& group = *attached(device);
  const Id old = group.hwpt;
  if (old == hwpt) return 0;
  if (!is_compatible(hwpt, device)) return -EINVAL;
  Ioas& from = ioas_of(old);
  Ioas& to = ioas_of(hwpt);
  if (&from != &to) {
    // iommufd_group_do_replace_reserved_iova
    const auto remove_reserved = [&](Ioas& ioas) {
      for (const Id each : group.devices) ioas.table.remove_reserved(&device_of(each));
    };
    for (const Id each : group.devices) {
      if (const int result = reserve(to, each); result < 0) {
        remove_reserved(to);
        return result;
      }
    }
    remove_reserved(from);
  }
  group.hwpt = hwpt;
  find<Hwpt>(hwpt)->devices += group.devices.size();
  find<Hwpt>(old)->devices -= group.devices.size();
  set_domain(device_of(device).group(), find<Hwpt>(hwpt)->domain);
  put_hwpt(old);
  return 0;
}

// iommufd_hw_pagetable_detach: DMA is blocked when the last device of the group is detached.
Iommufd::Id Iommufd::leave(Id device) {
  Attached& group = *attached(device);
  const Id hwpt = group.hwpt;
  group.devices.erase(device);
  if (group.devices.empty()) {
    set_domain(device_of(device).group(), nullptr);
    groups_.erase(device_of(device).group());
  }
  ioas_of(hwpt).table.remove_reserved(&device_of(device));
  find<Hwpt>(hwpt)->devices -= 1;
  return hwpt;
}

// iommufd_hwpt_attach_device does nothing without an IOMMU; __iommu_attach_group requires a page table of the device's
// IOMMU.
bool Iommufd::is_compatible(Id hwpt, Id device) {
  return !device_of(device).has_iommu() || !find<Hwpt>(hwpt)->is_noiommu;
}

// iommufd_hw_pagetable_put
void Iommufd::put_hwpt(Id id) {
  const Hwpt& hwpt = *find<Hwpt>(id);
  if (hwpt.is_automatic && hwpt.devices == 0) drop_hwpt(id);
}

// iopt_table_enforce_dev_resv_regions
int Iommufd::reserve(Ioas& ioas, Id device) {
  if (!device_of(device).has_iommu()) return 0;
  for (const IovaRange& range : iommu_.reserved) {
    if (const int result = ioas.table.reserve(range, &device_of(device)); result < 0) {
      ioas.table.remove_reserved(&device_of(device));
      return result;
    }
  }
  return 0;
}

void Iommufd::set_domain(int group, const std::shared_ptr<Domain>& domain) {
  for (auto& [id, object] : objects_) {
    Device** const device = std::get_if<Device*>(&object);
    if (device != nullptr && (*device)->group() == group) (*device)->domain = domain;
  }
}

Iommufd::Attached* Iommufd::attached(Id device) {
  const auto found = groups_.find(device_of(device).group());
  return found != groups_.end() ? &found->second : nullptr;
}

bool Iommufd::is_attached(Id device) {
  const Attached* const group = attached(device);
  return group != nullptr && group->devices.contains(device);
}

std::uint32_t Iommufd::id_of(const Device& device) const {
  for (const auto& [id, object] : objects_) {
    const auto* const bound = std::get_if<Device*>(&object);
    if (bound != nullptr && *bound == &device) return id;
  }
  return 0;
}

bool Iommufd::has_group(int group) const {
  return std::any_of(objects_.begin(), objects_.end(), [&](const auto& entry) {
    const auto* const bound = std::get_if<Device*>(&entry.second);
    return bound != nullptr && (*bound)->group() == group;
  });
}

}  // namespace postern::sim
