// SPDX-License-Identifier: Apache-2.0
// VFIO's container ioctls on /dev/iommu, and the IOAS that they use.
#include <linux/iommufd.h>
#include <linux/vfio.h>

#include <cstring>

#include "kernel/flex_array.hpp"
#include "transcript/iommufd_ids.hpp"
#include "transcript/operations.hpp"
#include "transcript/text.hpp"

namespace postern::transcript {
namespace {

std::string vfio_ioas(World& world) {
  const Place& iommufd = world.open_one(world.iommufds);
  Roomy<iommu_vfio_ioas> room_for(world);
  auto& request = room_for.request;
  request.op = static_cast<std::uint16_t>(world.random.pick({0, 0, 1, 1, 1, 1, 1, 2, 3}));
  request.__reserved = world.random.chance(3) ? 1 : 0;
  request.ioas_id = some_id(world, ids_of(world, iommufd).ioas);
  const std::uint32_t given = request.ioas_id;
  const int result = world.kernel.ioctl(iommufd.fd, IOMMU_VFIO_IOAS, &request);
  if (result == 0 && request.op != IOMMU_VFIO_IOAS_CLEAR) ids_of(world, iommufd).compat = request.ioas_id;
  return fmt::format("{} VFIO_IOAS size {} op {} ioas {} -> {}, ioas {}", iommufd.name, request.size, request.op, given,
                     outcome(result), request.ioas_id);
}

// Sets an iommufd as the container of a group; then queries the IOAS used for it.
std::string set_container(World& world) {
  Place& group = world.open_one(world.groups);
  const Place& iommufd = world.open_one(world.iommufds);
  int fd = iommufd.fd;
  const int result = world.kernel.ioctl(group.fd, VFIO_GROUP_SET_CONTAINER, &fd);
  std::string line = fmt::format("{} SET_CONTAINER {} -> {}", group.name, iommufd.name, outcome(result));
  if (result < 0) return line;
  group.is_usable = true;
  group.container.reset();
  iommu_vfio_ioas request{.size = sizeof request, .ioas_id = 0, .op = IOMMU_VFIO_IOAS_GET, .__reserved = 0};
  const int got = world.kernel.ioctl(iommufd.fd, IOMMU_VFIO_IOAS, &request);
  if (got == 0) {
    remember(ids_of(world, iommufd).ioas, request.ioas_id);
    ids_of(world, iommufd).compat = request.ioas_id;
  }
  return line + fmt::format(", VFIO_IOAS -> {}, ioas {}", outcome(got), request.ioas_id);
}

std::vector<Mapping>& compat_mappings(World& world, const Place& iommufd) {
  return mappings_of(world, iommufd, ids_of(world, iommufd).compat);
}

std::string by_value(World& world) {
  const Place& iommufd = world.open_one(world.iommufds);
  const unsigned long request =
      world.random.pick<unsigned long>({VFIO_GET_API_VERSION, VFIO_CHECK_EXTENSION, VFIO_CHECK_EXTENSION,
                                        VFIO_SET_IOMMU, VFIO_SET_IOMMU, VFIO_IOMMU_ENABLE});
  unsigned long value = world.random.below(14);
  // Version 1 is rare, since it disables large pages permanently.
  if (request == VFIO_SET_IOMMU && (value != VFIO_TYPE1_IOMMU || world.random.chance(50))) {
    value = world.random.pick<unsigned long>({VFIO_TYPE1v2_IOMMU, VFIO_TYPE1v2_IOMMU, VFIO_TYPE1_IOMMU, 8, 2});
  }
  void* const argument = reinterpret_cast<void*>(value);  // NOLINT(performance-no-int-to-ptr)
  const int result = world.kernel.ioctl(iommufd.fd, request, argument);
  return fmt::format("{} VFIO {:#x} {} -> {}", iommufd.name, request & 0xffff, value, outcome(result));
}

std::string get_info(World& world) {
  const Place& iommufd = world.open_one(world.iommufds);
  alignas(8) std::byte answer[256];
  std::memset(answer, 0xee, sizeof answer);
  auto& info = *reinterpret_cast<vfio_iommu_type1_info*>(answer);
  info.argsz = world.random.pick({0U, 15U, 16U, 20U, 24U, 30U, 40U, 60U, 72U, 88U, 104U, 256U, 256U, 256U});
  const std::uint32_t given = info.argsz;
  const int result = world.kernel.ioctl(iommufd.fd, VFIO_IOMMU_GET_INFO, answer);
  return fmt::format("{} VFIO GET_INFO argsz {} -> {}, argsz {} flags {:#x} pgsizes {:#x} cap {:#x}, {}", iommufd.name,
                     given, outcome(result), info.argsz, info.flags, info.iova_pgsizes, info.cap_offset,
                     digest(answer));
}

std::string map(World& world) {
  const Place& iommufd = world.open_one(world.iommufds);
  Roomy<vfio_iommu_type1_dma_map> room_for(world);
  auto& request = room_for.request;
  make_some_map(world, request);
  const int result = world.kernel.ioctl(iommufd.fd, VFIO_IOMMU_MAP_DMA, &request);
  if (result == 0) remember_mapping(compat_mappings(world, iommufd), {request.iova, request.size});
  return fmt::format("{} VFIO MAP_DMA argsz {} flags {:#x} {} at {:#x} size {:#x} -> {}", iommufd.name, request.argsz,
                     request.flags, address(request.vaddr), request.iova, request.size, outcome(result));
}

std::string unmap(World& world) {
  const Place& iommufd = world.open_one(world.iommufds);
  FlexArray<vfio_iommu_type1_dma_unmap, vfio_bitmap> room_for;
  auto& request = room_for.head();
  const Mapping range = some_range(world, compat_mappings(world, iommufd));
  request.argsz = argsz(world, sizeof request);
  request.iova = range.iova;
  request.size = range.length;
  if (world.random.chance(10)) request.flags = static_cast<std::uint32_t>(world.random.pick({1, 2, 2, 2, 4}));
  if (request.flags == VFIO_DMA_UNMAP_FLAG_ALL && world.random.chance(80)) request.iova = request.size = 0;
  const std::uint64_t given = request.size;
  const int result = world.kernel.ioctl(iommufd.fd, VFIO_IOMMU_UNMAP_DMA, &request);
  return fmt::format("{} VFIO UNMAP_DMA argsz {} flags {:#x} at {:#x} size {:#x} -> {}, size {:#x}", iommufd.name,
                     request.argsz, request.flags, request.iova, given, outcome(result), request.size);
}

bool has_group(const World& world) { return World::has_open(world.groups) && World::has_open(world.iommufds); }
bool has_ioas(const World& world) {
  return std::any_of(world.ids.begin(), world.ids.end(), [](const World::Ids& ids) { return !ids.ioas.empty(); });
}
bool has_compat(const World& world) {
  return std::any_of(world.ids.begin(), world.ids.end(), [](const World::Ids& ids) { return ids.compat != 0; });
}

constexpr Operation operations[] = {
    {vfio_ioas, 1, 10, has_ioas}, {by_value, 1, 8, has_ioas}, {get_info, 1, 8, has_compat},
    {map, 1, 20, has_compat},     {unmap, 1, 14, has_compat}, {set_container, 3, 25, has_group},
};

}  // namespace

std::span<const Operation> compat_operations() { return operations; }

}  // namespace postern::transcript
