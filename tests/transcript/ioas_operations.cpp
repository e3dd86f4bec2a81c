// SPDX-License-Identifier: Apache-2.0
// The ioctls of /dev/iommu about IOASes, and those about any object.
#include <linux/iommufd.h>

#include <cstring>

#include "transcript/iommufd_ids.hpp"
#include "transcript/operations.hpp"
#include "transcript/text.hpp"

namespace postern::transcript {
namespace {

std::string alloc(World& world) {
  const Place& iommufd = world.open_one(world.iommufds);
  Roomy<iommu_ioas_alloc> room_for(world);
  auto& request = room_for.request;
  request.flags = world.random.chance(4) ? 1 : 0;
  const int result = world.kernel.ioctl(iommufd.fd, IOMMU_IOAS_ALLOC, &request);
  if (result == 0) {
    remember(ids_of(world, iommufd).ioas, request.out_ioas_id);
    mappings_of(world, iommufd, request.out_ioas_id).clear();
  }
  return fmt::format("{} IOAS_ALLOC size {} flags {} -> {}, id {}", iommufd.name, request.size, request.flags,
                     outcome(result), request.out_ioas_id);
}

std::string destroy(World& world) {
  const Place& iommufd = world.open_one(world.iommufds);
  World::Ids& ids = ids_of(world, iommufd);
  Roomy<iommu_destroy> room_for(world);
  auto& request = room_for.request;
  const std::uint64_t kind = world.random.below(10);
  request.id = some_id(world, kind < 5 ? ids.ioas : kind < 8 ? ids.hwpts : ids.devices);
  const int result = world.kernel.ioctl(iommufd.fd, IOMMU_DESTROY, &request);
  if (result == 0) {
    erase(ids.ioas, request.id);
    erase(ids.hwpts, request.id);
  }
  return fmt::format("{} DESTROY size {} id {} -> {}", iommufd.name, request.size, request.id, outcome(result));
}

std::string iova_ranges(World& world) {
  const Place& iommufd = world.open_one(world.iommufds);
  Roomy<iommu_ioas_iova_ranges> room_for(world);
  auto& request = room_for.request;
  request.ioas_id = some_id(world, ids_of(world, iommufd).ioas);
  request.num_iovas = static_cast<std::uint32_t>(world.random.pick({0, 1, 2, 3, 8}));
  const std::uint32_t room = request.num_iovas;
  request.__reserved = world.random.chance(3) ? 1 : 0;
  request.allowed_iovas = some_buffer(world, 256);
  const int result = world.kernel.ioctl(iommufd.fd, IOMMU_IOAS_IOVA_RANGES, &request);
  return fmt::format("{} IOVA_RANGES size {} ioas {} room {} {} -> {}, {} ranges alignment {:#x}, {}", iommufd.name,
                     request.size, request.ioas_id, room, address(request.allowed_iovas), outcome(result),
                     request.num_iovas, request.out_iova_alignment, buffer_digest(request.allowed_iovas, 256));
}

std::string allow_iovas(World& world) {
  const Place& iommufd = world.open_one(world.iommufds);
  Roomy<iommu_ioas_allow_iovas> room_for(world);
  auto& request = room_for.request;
  request.ioas_id = some_id(world, ids_of(world, iommufd).ioas);
  request.num_iovas = static_cast<std::uint32_t>(world.random.below(4));
  request.__reserved = world.random.chance(3) ? 1 : 0;
  request.allowed_iovas = some_buffer(world, 64);
  std::string what;
  if (request.allowed_iovas == Memory::start + Memory::scratch) {
    auto* const ranges = reinterpret_cast<iommu_iova_range*>(request.allowed_iovas);
    for (std::uint32_t i = 0; i < request.num_iovas; ++i) {
      ranges[i].start = some_iova(world);
      ranges[i].last = ranges[i].start + some_length(world) * 64 - 1;
      what += fmt::format(" {:#x}-{:#x}", ranges[i].start, ranges[i].last);
    }
  }
  const int result = world.kernel.ioctl(iommufd.fd, IOMMU_IOAS_ALLOW_IOVAS, &request);
  return fmt::format("{} ALLOW_IOVAS size {} ioas {} {} of{} -> {}", iommufd.name, request.size, request.ioas_id,
                     request.num_iovas, what, outcome(result));
}

std::uint32_t some_map_flags(World& world) {
  if (world.random.chance(4)) return static_cast<std::uint32_t>(world.random.below(16));
  const std::uint32_t access = world.random.pick({IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
                                                  IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
                                                  IOMMU_IOAS_MAP_READABLE + 0, IOMMU_IOAS_MAP_WRITEABLE + 0});
  return access | (world.random.chance(75) ? IOMMU_IOAS_MAP_FIXED_IOVA : 0);
}

std::string map(World& world) {
  const Place& iommufd = world.open_one(world.iommufds);
  Roomy<iommu_ioas_map> room_for(world);
  auto& request = room_for.request;
  request.flags = some_map_flags(world);
  request.ioas_id = some_id(world, ids_of(world, iommufd).ioas);
  request.__reserved = world.random.chance(2) ? 1 : 0;
  request.user_va = some_memory(world);
  std::uint64_t length = some_length(world);
  std::uint64_t wanted = some_iova(world);
  fit_to_bar(world, request.user_va, wanted, length);
  request.length = length;
  request.iova = wanted;
  const int result = world.kernel.ioctl(iommufd.fd, IOMMU_IOAS_MAP, &request);
  if (result == 0) remember_mapping(mappings_of(world, iommufd, request.ioas_id), {request.iova, request.length});
  return fmt::format("{} IOAS_MAP size {} flags {:#x} ioas {} {} length {:#x} at {:#x} -> {}, at {:#x}", iommufd.name,
                     request.size, request.flags, request.ioas_id, address(request.user_va), request.length, wanted,
                     outcome(result), request.iova);
}

std::string map_file(World& world) {
  const Place& iommufd = world.open_one(world.iommufds);
  const std::uint64_t kind = world.random.below(100);
  const Place* place = nullptr;
  if (kind >= 97) place = &iommufd;
  if (kind >= 92 && kind < 97) place = &world.any(world.eventfds);
  Roomy<iommu_ioas_map_file> room_for(world);
  auto& request = room_for.request;
  std::string_view file = "memfd";
  request.fd = world.memory_file();
  if (place != nullptr) {
    file = place->name;
    request.fd = place->fd;
  } else if (kind >= 90) {
    file = "null";
    request.fd = world.null_device();
  } else if (kind >= 75) {
    file = "read-only memfd";
    request.fd = world.read_only_file();
  }
  request.flags = some_map_flags(world);
  request.ioas_id = some_id(world, ids_of(world, iommufd).ioas);
  constexpr std::uint64_t page = 4096;
  request.start = world.random.below(Memory::of_file / page) * page;
  if (world.random.chance(8)) request.start += world.random.pick<std::uint64_t>({1, 8, 2048, 4095});
  if (world.random.chance(4)) request.start = world.random.pick({Memory::of_file, 0 - page, std::uint64_t{1} << 47});
  request.length = some_length(world);
  request.iova = some_iova(world);
  const std::uint64_t wanted = request.iova;
  const int result = world.kernel.ioctl(iommufd.fd, IOMMU_IOAS_MAP_FILE, &request);
  if (result == 0) remember_mapping(mappings_of(world, iommufd, request.ioas_id), {request.iova, request.length});
  return fmt::format("{} IOAS_MAP_FILE size {} flags {:#x} ioas {} {} from {:#x} length {:#x} at {:#x} -> {}, at {:#x}",
                     iommufd.name, request.size, request.flags, request.ioas_id, file, request.start, request.length,
                     wanted, outcome(result), request.iova);
}

std::string copy(World& world) {
  const Place& iommufd = world.open_one(world.iommufds);
  const World::Ids& ids = ids_of(world, iommufd);
  Roomy<iommu_ioas_copy> room_for(world);
  auto& request = room_for.request;
  request.flags = some_map_flags(world);
  request.src_ioas_id = some_mapped_ioas(world, iommufd);
  request.dst_ioas_id = some_id(world, ids.ioas);
  const Mapping from = some_range(world, mappings_of(world, iommufd, request.src_ioas_id));
  request.src_iova = from.iova;
  request.length = from.length;
  request.dst_iova = some_iova(world);
  const std::uint64_t wanted = request.dst_iova;
  const int result = world.kernel.ioctl(iommufd.fd, IOMMU_IOAS_COPY, &request);
  if (result == 0)
    remember_mapping(mappings_of(world, iommufd, request.dst_ioas_id), {request.dst_iova, request.length});
  return fmt::format(
      "{} IOAS_COPY size {} flags {:#x} ioas {} at {:#x} length {:#x} to ioas {} at {:#x} -> {}, at {:#x}",
      iommufd.name, request.size, request.flags, request.src_ioas_id, request.src_iova, request.length,
      request.dst_ioas_id, wanted, outcome(result), request.dst_iova);
}

std::string unmap(World& world) {
  const Place& iommufd = world.open_one(world.iommufds);
  Roomy<iommu_ioas_unmap> room_for(world);
  auto& request = room_for.request;
  request.ioas_id = some_mapped_ioas(world, iommufd);
  const Mapping range = some_range(world, mappings_of(world, iommufd, request.ioas_id));
  request.iova = range.iova;
  request.length = range.length;
  if (world.random.chance(6)) {
    request.iova = 0;
    request.length = ~std::uint64_t{0};
  }
  const std::uint64_t wanted = request.length;
  const int result = world.kernel.ioctl(iommufd.fd, IOMMU_IOAS_UNMAP, &request);
  return fmt::format("{} IOAS_UNMAP size {} ioas {} at {:#x} length {:#x} -> {}, length {:#x}", iommufd.name,
                     request.size, request.ioas_id, request.iova, wanted, outcome(result), request.length);
}

std::string option(World& world) {
  const Place& iommufd = world.open_one(world.iommufds);
  Roomy<iommu_option> room_for(world);
  auto& request = room_for.request;
  request.option_id = static_cast<std::uint32_t>(world.random.pick({0, 1, 1, 1, 1, 2}));
  request.op = static_cast<std::uint16_t>(world.random.pick({0, 0, 1, 1, 2}));
  request.__reserved = world.random.chance(3) ? 1 : 0;
  request.object_id = request.option_id == IOMMU_OPTION_RLIMIT_MODE && world.random.chance(80)
                          ? 0
                          : some_id(world, ids_of(world, iommufd).ioas);
  request.val64 = world.random.pick<std::uint64_t>({0, 0, 1, 1, 2});
  const std::uint64_t value = request.val64;
  const int result = world.kernel.ioctl(iommufd.fd, IOMMU_OPTION, &request);
  return fmt::format("{} OPTION size {} {} op {} object {} value {} -> {}, value {}", iommufd.name, request.size,
                     request.option_id, request.op, request.object_id, value, outcome(result), request.val64);
}

bool has_iommufd(const World& world) { return World::has_open(world.iommufds); }
bool has_ioas(const World& world) {
  return has_iommufd(world) &&
         std::any_of(world.ids.begin(), world.ids.end(), [](const World::Ids& ids) { return !ids.ioas.empty(); });
}
bool has_none(const World& world) { return has_iommufd(world) && !has_ioas(world); }

constexpr Operation operations[] = {
    {alloc, 1, 14, has_iommufd},    {alloc, 0, 60, has_none},      {destroy, 1, 10, has_iommufd},
    {iova_ranges, 1, 16, has_ioas}, {allow_iovas, 1, 5, has_ioas}, {map, 1, 85, has_ioas},
    {map_file, 1, 40, has_ioas},    {copy, 1, 35, has_ioas},       {unmap, 1, 45, has_ioas},
    {option, 1, 14, has_iommufd},
};

}  // namespace

std::span<const Operation> ioas_operations() { return operations; }

}  // namespace postern::transcript
