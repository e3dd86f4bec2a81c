// SPDX-License-Identifier: Apache-2.0
// Cdevs: binding to an iommufd, attaching to page tables and detaching, in any order.
#include <linux/iommufd.h>
#include <linux/vfio.h>

#include <algorithm>

#include "transcript/iommufd_ids.hpp"
#include "transcript/operations.hpp"
#include "transcript/text.hpp"

namespace postern::transcript {
namespace {

std::string bind(World& world) {
  Place& cdev = world.random.chance(96) ? world.open_one(world.cdevs) : any_device(world);
  const Place& iommufd = world.open_one(world.iommufds);
  Roomy<vfio_device_bind_iommufd> room_for(world);
  auto& request = room_for.request;
  request.argsz = argsz(world, sizeof request);
  request.iommufd = iommufd.fd;
  std::string what = iommufd.name;
  const std::uint64_t wrong = world.random.below(100);
  if (wrong < 2)
    request.iommufd = -1, what = "-1";
  else if (wrong < 4)
    request.iommufd = 9999, what = "no file";
  else if (wrong < 6)
    request.iommufd = world.null_device(), what = "/dev/null";
  else if (wrong < 8)
    request.iommufd = cdev.fd, what = "itself";
  else if (wrong < 10)
    request.flags = 1U << world.random.below(3);
  const int result = world.kernel.ioctl(cdev.fd, VFIO_DEVICE_BIND_IOMMUFD, &request);
  if (result == 0) {
    remember(ids_of(world, iommufd).devices, request.out_devid);
    cdev.is_usable = true;
  }
  return fmt::format("{} BIND_IOMMUFD argsz {} flags {} {} -> {}, id {}", cdev.name, request.argsz, request.flags, what,
                     outcome(result), request.out_devid);
}

// Never 0 (no PASID): the kernel would attach the device itself without VFIO noticing.
std::uint32_t some_pasid(World& world) {
  return world.random.pick({1U, 1U, 2U, 0xfffffU, 0x7fffffffU, 0x80000000U, 0xffffffffU});
}

std::string attach(World& world) {
  const Place& cdev = world.random.chance(96) ? world.usable_one(world.cdevs) : any_device(world);
  World::Ids& ids = ids_of(world, world.open_one(world.iommufds));
  Roomy<vfio_device_attach_iommufd_pt> room_for(world);
  auto& request = room_for.request;
  request.argsz = argsz(world, offsetof(vfio_device_attach_iommufd_pt, pasid));
  request.pt_id = some_id(world, world.random.chance(65) ? ids.ioas : ids.hwpts);
  if (world.random.chance(7)) {
    request.argsz = argsz(world, sizeof request);
    request.flags = world.random.chance(80) ? VFIO_DEVICE_ATTACH_PASID : 1U << world.random.below(3);
    request.pasid = some_pasid(world);
  }
  const std::uint32_t given = request.pt_id;
  const int result = world.kernel.ioctl(cdev.fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &request);
  if (result == 0) remember(ids.hwpts, request.pt_id);
  return fmt::format("{} ATTACH_IOMMUFD_PT argsz {} flags {} id {} pasid {:#x} -> {}, id {}", cdev.name, request.argsz,
                     request.flags, given, request.pasid, outcome(result), request.pt_id);
}

std::string detach(World& world) {
  const Place& cdev = world.random.chance(96) ? world.usable_one(world.cdevs) : any_device(world);
  Roomy<vfio_device_detach_iommufd_pt> room_for(world);
  auto& request = room_for.request;
  request.argsz = argsz(world, offsetof(vfio_device_detach_iommufd_pt, pasid));
  if (world.random.chance(7)) {
    request.argsz = argsz(world, sizeof request);
    request.flags = world.random.chance(80) ? VFIO_DEVICE_DETACH_PASID : 1U << world.random.below(3);
    request.pasid = some_pasid(world);
  }
  const int result = world.kernel.ioctl(cdev.fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, &request);
  return fmt::format("{} DETACH_IOMMUFD_PT argsz {} flags {} -> {}", cdev.name, request.argsz, request.flags,
                     outcome(result));
}

bool has_cdev(const World& world) { return World::has_open(world.cdevs); }
bool has_bound(const World& world) { return World::has_usable(world.cdevs); }
bool has_both(const World& world) { return has_cdev(world) && World::has_open(world.iommufds); }

constexpr Operation operations[] = {
    {bind, 2, 40, has_both},
    {attach, 1, 55, has_bound},
    {detach, 1, 14, has_bound},
};

}  // namespace

std::span<const Operation> cdev_operations() { return operations; }

}  // namespace postern::transcript
