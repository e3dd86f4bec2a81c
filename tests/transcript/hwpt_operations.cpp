// SPDX-License-Identifier: Apache-2.0
// The ioctls of /dev/iommu about page tables, and about the IOMMU behind a device.
#include <linux/iommufd.h>

#include "transcript/iommufd_ids.hpp"
#include "transcript/operations.hpp"
#include "transcript/text.hpp"

namespace postern::transcript {
namespace {

std::string alloc(World& world) {
  const Place& iommufd = world.open_one(world.iommufds);
  World::Ids& ids = ids_of(world, iommufd);
  Roomy<iommu_hwpt_alloc> room_for(world);
  auto& request = room_for.request;
  if (world.random.chance(12)) request.flags = static_cast<std::uint32_t>(world.random.below(32));
  request.dev_id = some_id(world, ids.devices);
  request.pt_id = some_id(world, world.random.chance(85) ? ids.ioas : ids.hwpts);
  if (world.random.chance(4)) request.__reserved = 1;
  if (world.random.chance(6)) request.data_type = static_cast<std::uint32_t>(world.random.below(4));
  if (world.random.chance(6)) request.data_len = 16;
  request.data_uptr = some_buffer(world, 64);
  const int result = world.kernel.ioctl(iommufd.fd, IOMMU_HWPT_ALLOC, &request);
  if (result == 0) remember(ids.hwpts, request.out_hwpt_id);
  return fmt::format("{} HWPT_ALLOC size {} flags {:#x} device {} id {} data {}:{} -> {}, id {}", iommufd.name,
                     request.size, request.flags, request.dev_id, request.pt_id, request.data_type, request.data_len,
                     outcome(result), request.out_hwpt_id);
}

std::string set_dirty(World& world) {
  const Place& iommufd = world.open_one(world.iommufds);
  Roomy<iommu_hwpt_set_dirty_tracking> room_for(world);
  auto& request = room_for.request;
  request.hwpt_id = some_id(world, ids_of(world, iommufd).hwpts);
  request.flags = static_cast<std::uint32_t>(world.random.pick({0, 1, 1, 2}));
  request.__reserved = world.random.chance(5) ? 1 : 0;
  const int result = world.kernel.ioctl(iommufd.fd, IOMMU_HWPT_SET_DIRTY_TRACKING, &request);
  return fmt::format("{} SET_DIRTY_TRACKING size {} id {} flags {} -> {}", iommufd.name, request.size, request.hwpt_id,
                     request.flags, outcome(result));
}

std::string get_dirty(World& world) {
  const Place& iommufd = world.open_one(world.iommufds);
  Roomy<iommu_hwpt_get_dirty_bitmap> room_for(world);
  auto& request = room_for.request;
  request.hwpt_id = some_id(world, ids_of(world, iommufd).hwpts);
  request.flags = static_cast<std::uint32_t>(world.random.pick({0, 0, 1, 2}));
  request.__reserved = world.random.chance(5) ? 1 : 0;
  request.iova = some_iova(world);
  request.length = some_length(world);
  request.page_size = world.random.pick<std::uint64_t>({4096, 4096, 4096, 0, 1, 12288, 0x200000});
  request.data = some_buffer(world, 256);
  const int result = world.kernel.ioctl(iommufd.fd, IOMMU_HWPT_GET_DIRTY_BITMAP, &request);
  return fmt::format("{} GET_DIRTY_BITMAP size {} id {} flags {} at {:#x} length {:#x} page {:#x} {} -> {}, {}",
                     iommufd.name, request.size, request.hwpt_id, request.flags, request.iova, request.length,
                     request.page_size, address(request.data), outcome(result), buffer_digest(request.data, 256));
}

// The contents of VT-d's registers differ between hosts; their length, and the bytes after them, do not.
std::string hw_info(World& world) {
  const Place& iommufd = world.open_one(world.iommufds);
  Roomy<iommu_hw_info> room_for(world);
  auto& request = room_for.request;
  if (world.random.chance(10)) request.flags = static_cast<std::uint32_t>(world.random.below(4));
  request.dev_id = some_id(world, ids_of(world, iommufd).devices);
  request.data_len = static_cast<std::uint32_t>(world.random.pick({0, 8, 24, 24, 32, 64}));
  request.data_uptr = some_buffer(world, 64);
  if (world.random.chance(10)) request.in_data_type = static_cast<std::uint32_t>(world.random.below(4));
  if (world.random.chance(3)) request.__reserved[1] = 1;
  const std::uint32_t room = request.data_len;
  const int result = world.kernel.ioctl(iommufd.fd, IOMMU_GET_HW_INFO, &request);
  std::string behind = "-";
  if (request.data_uptr == Memory::start + Memory::scratch) {
    behind = digest({reinterpret_cast<const std::byte*>(request.data_uptr) + 24, 40});
  }
  return fmt::format(
      "{} GET_HW_INFO size {} flags {} device {} room {} {} -> {}, length {} type {} caps {:#x} pasid {}, {}",
      iommufd.name, request.size, request.flags, request.dev_id, room, address(request.data_uptr), outcome(result),
      request.data_len, request.out_data_type, request.out_capabilities, request.out_max_pasid_log2, behind);
}

bool has_device(const World& world) {
  return World::has_open(world.iommufds) &&
         std::any_of(world.ids.begin(), world.ids.end(), [](const World::Ids& ids) { return !ids.devices.empty(); });
}

constexpr Operation operations[] = {
    {alloc, 1, 24, has_device},
    {set_dirty, 1, 5, has_device},
    {get_dirty, 1, 8, has_device},
    {hw_info, 1, 10, has_device},
};

}  // namespace

std::span<const Operation> hwpt_operations() { return operations; }

}  // namespace postern::transcript
