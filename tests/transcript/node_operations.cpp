// SPDX-License-Identifier: Apache-2.0
// Opening and closing nodes in any order; groups and containers.
#include <fcntl.h>
#include <linux/vfio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <postern/locked_memory.hpp>

#include "transcript/operations.hpp"
#include "transcript/text.hpp"

namespace postern::transcript {
namespace {

// Opens a node. If its place is occupied, closes the new fd again.
std::string open(World& world, Place& place, const std::string& path) {
  const int fd = world.kernel.open(path.c_str(), O_RDWR);
  std::string line = "open " + place.name + (place.is_open() ? " again" : "") + " -> " + opened(fd);
  if (fd >= 0 && place.is_open()) {
    line += ", close -> " + outcome(world.kernel.close(fd));
  } else if (fd >= 0) {
    place.fd = fd;
  }
  return line;
}

bool is_in(const Place& device, const Place& group) {
  return std::min<std::size_t>(device.function, 2) == group.function;
}

std::string open_container(World& world) { return open(world, world.any(world.containers), "/dev/vfio/vfio"); }

std::string open_group(World& world) {
  Place& place = world.any(world.groups);
  return open(world, place, "/dev/vfio/" + std::to_string(world.functions[place.function].group));
}

std::string open_cdev(World& world) {
  Place& place = world.any(world.cdevs);
  return open(world, place, world.functions[place.function].cdev);
}

std::string open_iommufd(World& world) {
  Place& place = world.any(world.iommufds);
  const bool is_new = !place.is_open();
  std::string line = open(world, place, "/dev/iommu");
  if (is_new) world.ids[world.index_of(place, world.iommufds)] = {};
  return line;
}

std::string open_eventfd(World& world) {
  Place& place = world.any(world.eventfds);
  // An eventfd that unmasks INTx must stay open: the kernel notices its close only some time later.
  if (place.is_open() && &place == &world.eventfds.back()) return place.name + " stays";
  world.close(place);
  place.fd = world.kernel.eventfd();
  return place.name + " is new";
}

std::string close_one(World& world, std::vector<Place>& places) {
  Place& place = world.open_one(places);
  std::string line = "close " + place.name + " -> " + outcome(world.kernel.close(place.fd));
  place.fd = -1;
  place.is_usable = false;
  return line;
}

std::string close_container(World& world) { return close_one(world, world.containers); }
std::string close_group(World& world) {
  std::string line = close_one(world, world.groups);
  // Finds out which group was closed. A group stays in its container while its devices are open.
  for (Place& group : world.groups) {
    const auto holds = [&](const Place& device) { return device.is_open() && is_in(device, group); };
    if (!group.is_open() && std::none_of(world.devices.begin(), world.devices.end(), holds)) world.leave(group);
  }
  return line;
}
std::string close_device(World& world) { return close_one(world, world.devices); }
std::string close_cdev(World& world) { return close_one(world, world.cdevs); }
std::string close_iommufd(World& world) { return close_one(world, world.iommufds); }

std::string group_status(World& world) {
  const Place& group = world.open_one(world.groups);
  vfio_group_status status{.argsz = argsz(world, sizeof(vfio_group_status)), .flags = 0xaaaa};
  const std::uint32_t given = status.argsz;
  const int result = world.kernel.ioctl(group.fd, VFIO_GROUP_GET_STATUS, &status);
  return fmt::format("{} GET_STATUS argsz {} -> {}, flags {:#x}", group.name, given, outcome(result), status.flags);
}

// Usually passes an open container, at times a wrong file.
std::string set_container(World& world) {
  Place& group = world.open_one(world.groups);
  const Place& container = world.open_one(world.containers);
  int fd = container.fd;
  std::string what = container.name;
  const std::uint64_t wrong = world.random.below(100);
  if (wrong < 2) {
    fd = group.fd;
    what = "itself";
  } else if (wrong < 4) {
    fd = world.null_device();
    what = "/dev/null";
  } else if (wrong < 6) {
    fd = 9999;
    what = "no file";
  } else if (wrong < 7) {
    fd = -1;
    what = "-1";
  }
  const int result = world.kernel.ioctl(group.fd, VFIO_GROUP_SET_CONTAINER, &fd);
  if (result == 0) {
    group.is_usable = true;
    group.container = world.index_of(container, world.containers);
  }
  return fmt::format("{} SET_CONTAINER {} -> {}", group.name, what, outcome(result));
}

std::string unset_container(World& world) {
  Place& group = world.open_one(world.groups);
  const int result = world.kernel.ioctl(group.fd, VFIO_GROUP_UNSET_CONTAINER, nullptr);
  if (result == 0) world.leave(group);
  return group.name + " UNSET_CONTAINER -> " + outcome(result);
}

unsigned long iommu_type(Backend backend) {
  switch (backend) {
    case Backend::spapr:
      return VFIO_SPAPR_TCE_v2_IOMMU;
    case Backend::spaprv1:
      return VFIO_SPAPR_TCE_IOMMU;
    case Backend::type1v1:
      return VFIO_TYPE1_IOMMU;
    default:
      return VFIO_TYPE1v2_IOMMU;
  }
}

std::string set_iommu(World& world) {
  Place& container = world.open_one(world.containers);
  unsigned long type = iommu_type(world.backend);
  if (world.random.chance(10)) type = world.random.below(12);
  void* const argument = reinterpret_cast<void*>(type);  // NOLINT(performance-no-int-to-ptr)
  const int result = world.kernel.ioctl(container.fd, VFIO_SET_IOMMU, argument);
  if (result == 0) {
    container.is_usable = true;
    world.mappings.erase(world.index_of(container, world.containers));
    world.windows[world.index_of(container, world.containers)] = {.is_v1 = type == VFIO_SPAPR_TCE_IOMMU};
  }
  return fmt::format("{} SET_IOMMU {} -> {}", container.name, type, outcome(result));
}

std::string check_extension(World& world) {
  const Place& container = world.open_one(world.containers);
  const unsigned long extension = world.random.below(14);
  void* const argument = reinterpret_cast<void*>(extension);  // NOLINT(performance-no-int-to-ptr)
  const int result = world.kernel.ioctl(container.fd, VFIO_CHECK_EXTENSION, argument);
  return fmt::format("{} CHECK_EXTENSION {} -> {}", container.name, extension, outcome(result));
}

std::string api_version(World& world) {
  const Place& container = world.open_one(world.containers);
  return container.name + " GET_API_VERSION -> " +
         outcome(world.kernel.ioctl(container.fd, VFIO_GET_API_VERSION, nullptr));
}

std::string get_device_fd(World& world) {
  const Place& group = world.usable_one(world.groups);
  Place* place = &world.any(world.devices);
  // Usually a device of the group.
  if (world.random.chance(90)) {
    const std::size_t twin = group.function == 2 ? world.random.below(2) : 0;
    place = &world.devices[(group.function + twin) * 2 + world.random.below(2)];
  }
  std::string name = to_string(world.functions[place->function].address);
  std::string how;
  if (world.random.chance(6)) {
    how = world.random.pick({" ", " nonsense", " vf_token=1", "x", " vf_token=bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3"});
    name += how;
  }
  const int fd = world.kernel.ioctl(group.fd, VFIO_GROUP_GET_DEVICE_FD, name.data());
  std::string line = fmt::format("{} GET_DEVICE_FD {} '{}' -> {}", group.name, place->name, how, opened(fd));
  if (fd >= 0 && place->is_open()) {
    line += ", close -> " + outcome(world.kernel.close(fd));
  } else if (fd >= 0) {
    place->fd = fd;
  }
  return line;
}

// Makes an ioctl of another kind of file, or an unknown one.
std::string wrong_ioctl(World& world) {
  const auto places = {&world.containers, &world.groups, &world.devices, &world.cdevs};
  const Place& place = world.open_one(*world.random.pick(places));
  // Only ioctls without an argument, or that check their argsz first, which is 0 here.
  const unsigned long request = world.random.pick<unsigned long>(
      {VFIO_GROUP_UNSET_CONTAINER, VFIO_DEVICE_RESET, VFIO_IOMMU_ENABLE, VFIO_DEVICE_GET_INFO, VFIO_IOMMU_MAP_DMA,
       VFIO_DEVICE_DETACH_IOMMUFD_PT, _IO(VFIO_TYPE, VFIO_BASE + 60)});
  std::uint64_t argument[8] = {};
  const int result = world.kernel.ioctl(place.fd, request, &argument);
  // Omits the direction bits, whose position depends on the architecture.
  return fmt::format("{} ioctl {:#x} -> {}", place.name, request & 0xffff, outcome(result));
}

std::string locked_memory(World& world) {
  const auto memory = LockedMemory::read(world.kernel).value();
  return fmt::format("VmLck {:#x}, VmPin {:#x}", memory.locked, memory.pinned);
}

bool always(const World& /*world*/) { return true; }
bool has_container(const World& world) { return World::has_open(world.containers); }
bool has_group(const World& world) { return World::has_open(world.groups); }
bool has_both(const World& world) { return has_container(world) && has_group(world); }
bool has_group_in_container(const World& world, bool is_iommufd) {
  return std::any_of(world.groups.begin(), world.groups.end(),
                     [&](const Place& group) { return group.is_usable && group.container.has_value() != is_iommufd; });
}
bool can_open_device(const World& world) {
  return has_group_in_container(world, true) || (World::has_usable(world.containers) && has_group(world));
}
bool needs_iommu(const World& world) {
  return has_group_in_container(world, false) && !World::has_usable(world.containers);
}
bool has_device_file(const World& world) { return World::has_open(world.devices); }
bool has_cdev(const World& world) { return World::has_open(world.cdevs); }
bool has_iommufd(const World& world) { return World::has_open(world.iommufds); }
bool has_no_container(const World& world) { return !has_container(world); }
bool has_no_iommufd(const World& world) { return !has_iommufd(world); }

constexpr Operation operations[] = {
    {open_container, 12, 1, always},    {open_container, 60, 0, has_no_container},
    {open_group, 40, 12, always},       {open_cdev, 4, 40, always},
    {open_iommufd, 3, 8, always},       {open_iommufd, 0, 80, has_no_iommufd},
    {open_eventfd, 6, 6, always},       {close_container, 5, 1, has_container},
    {close_group, 7, 4, has_group},     {close_device, 14, 8, has_device_file},
    {close_cdev, 4, 12, has_cdev},      {close_iommufd, 2, 2, has_iommufd},
    {group_status, 10, 3, has_group},   {set_container, 30, 4, has_both},
    {unset_container, 5, 4, has_group}, {set_iommu, 8, 2, has_both},
    {set_iommu, 120, 2, needs_iommu},   {check_extension, 6, 1, has_container},
    {api_version, 2, 1, has_container}, {get_device_fd, 60, 30, can_open_device},
    {wrong_ioctl, 5, 5, has_group},     {locked_memory, 8, 8, always},
};

}  // namespace

std::span<const Operation> node_operations() { return operations; }

}  // namespace postern::transcript
