// SPDX-License-Identifier: Apache-2.0
// Random choices shared by several operations.
#include <linux/vfio.h>

#include <algorithm>
#include <cstring>

#include "transcript/operations.hpp"
#include "transcript/text.hpp"

namespace postern::transcript {
namespace {

constexpr std::uint64_t page = 4096;

std::uint64_t pages(World& world, std::uint64_t end) { return world.random.below(end) * page; }

}  // namespace

Place& any_device(World& world) {
  const bool group = world.has_open(world.devices);
  const bool cdev = world.has_usable(world.cdevs);
  const bool choice = world.random.chance(50);
  return (group && cdev ? choice : group) ? world.open_one(world.devices) : world.usable_one(world.cdevs);
}

bool has_device(const World& world) { return World::has_open(world.devices) || World::has_usable(world.cdevs); }

SomeFd some_eventfd(World& world, bool takes_signals) {
  const std::uint64_t kind = world.random.below(100);
  if (kind < 12) return {-1, "-1"};
  if (kind < 14) return {-2, "-2"};
  if (kind < 17) return {9999, "no file"};
  if (kind < 20) return {world.null_device(), "/dev/null"};
  const std::size_t last = world.eventfds.size() - 1;
  const Place& place = world.eventfds[takes_signals ? last : world.random.below(last)];
  return {place.fd, place.is_open() ? place.name : "-1"};
}

std::uint32_t argsz(World& world, std::size_t good) {
  const auto size = static_cast<std::uint32_t>(good);
  if (world.random.chance(93)) return size;
  return world.random.pick({0U, 4U, size - 4, size - 1, size + 8});
}

std::uint64_t some_iova(World& world) {
  std::uint64_t iova = pages(world, 48);
  const std::uint64_t place = world.random.below(100);
  if (place < 8) {
    iova += 0xfee00000 - 24 * page;  // near the reserved range
  } else if (place < 10) {
    iova += 0xfef00000 - 24 * page;
  } else if (place < 16) {
    iova += (std::uint64_t{1} << 39) - 24 * page;  // near the end of the aperture
  } else if (place < 18) {
    iova = 0 - page - iova;
  } else if (place < 24) {
    iova += world.random.below(8) << 21;
  }
  return world.random.chance(4) ? iova + world.random.pick<std::uint64_t>({1, 8, 512, 2048}) : iova;
}

std::uint64_t some_length(World& world) {
  const std::uint64_t kind = world.random.below(100);
  const std::uint64_t small = page + pages(world, 8);
  if (kind < 80) return small;
  if (kind < 88) return page * (1 + world.random.below(300));
  if (kind < 90) return 0x200000;
  if (kind < 94) return world.random.pick<std::uint64_t>({0, 1, 4095, 4097, 6144});
  if (kind < 97) return std::uint64_t{1} << (20 + world.random.below(24));
  return world.random.pick<std::uint64_t>({~std::uint64_t{0}, 0 - page, std::uint64_t{1} << 63, 0 - page * 17});
}

std::uint64_t some_memory(World& world) {
  const std::uint64_t kind = world.random.below(100);
  std::uint64_t offset = pages(world, Memory::read_only / page);
  const bool has_bar = world.bars != decltype(world.bars){};
  if (has_bar && world.random.chance(15)) {
    offset = Memory::before_bars + pages(world, (Memory::scratch - Memory::before_bars) / page);
  } else if (kind < 6) {
    offset = Memory::read_only + pages(world, 1024);
  } else if (kind < 8) {
    offset = Memory::no_access + pages(world, 1024);
  } else if (kind < 10) {
    offset = Memory::hole + pages(world, 1024);
  } else if (kind < 12) {
    offset = Memory::read_only - pages(world, 4);
  } else if (kind < 14) {
    return world.random.pick<std::uint64_t>({0, page, 0 - page * 32, std::uint64_t{1} << 47});
  }
  if (world.random.chance(4)) offset += world.random.pick<std::uint64_t>({1, 8, 2048, 4095});
  return Memory::start + offset;
}

void fit_to_bar(World& world, std::uint64_t address, std::uint64_t& iova, std::uint64_t& length) {
  const std::uint64_t offset = address - Memory::start - Memory::bars;
  if (offset >= world.bars.size() * Memory::bar_length) return;
  const std::uint64_t end = world.bars[offset / Memory::bar_length];
  if (offset % Memory::bar_length >= end || world.random.chance(40)) return;
  length = end - offset % Memory::bar_length;
  iova = 0x1000000 + pages(world, 64);
}

void make_some_map(World& world, vfio_iommu_type1_dma_map& request) {
  request.argsz = argsz(world, sizeof request);
  request.flags = world.random.chance(90) ? 1 + static_cast<std::uint32_t>(world.random.below(3))
                                          : static_cast<std::uint32_t>(world.random.below(16));
  request.vaddr = some_memory(world);
  std::uint64_t iova = some_iova(world);
  std::uint64_t size = some_length(world);
  fit_to_bar(world, request.vaddr, iova, size);
  request.iova = iova;
  request.size = size;
}

void remember_mapping(std::vector<Mapping>& mapped, Mapping mapping) {
  if (mapped.size() > 12) mapped.erase(mapped.begin());
  mapped.push_back(mapping);
}

Mapping some_range(World& world, const std::vector<Mapping>& mapped) {
  const std::uint64_t kind = world.random.below(100);
  Mapping range{some_iova(world), some_length(world)};
  if (mapped.empty() || kind >= 85) return range;
  range = mapped[world.random.below(mapped.size())];
  if (kind < 50) return range;
  if (kind < 58)
    range.length = range.length / 2 & ~(page - 1);
  else if (kind < 64)
    range.iova += page;
  else if (kind < 72)
    range.length += page * (1 + world.random.below(16));
  else if (kind < 76)
    range = {range.iova - page, range.length + page};
  else if (kind < 82)
    range = {0, range.iova + range.length};
  return range;
}

std::uint64_t some_buffer(World& world, std::size_t length) {
  auto* const scratch = reinterpret_cast<std::byte*>(Memory::start + Memory::scratch);
  std::memset(scratch, world.random.chance(80) ? 0 : 0xa5, std::max<std::size_t>(length, page) + 64);
  const std::uint64_t kind = world.random.below(100);
  if (kind < 90) return Memory::start + Memory::scratch;
  if (kind < 92) return Memory::start + Memory::read_only;
  if (kind < 94) return Memory::start + Memory::hole + page;
  if (kind < 96) return Memory::start + Memory::no_access;
  if (kind < 98) return std::uint64_t{1} << 63;
  return 0;
}

std::string buffer_digest(std::uint64_t buffer, std::size_t length) {
  if (buffer != Memory::start + Memory::scratch) return "-";
  return digest({reinterpret_cast<const std::byte*>(buffer), length});
}

}  // namespace postern::transcript
