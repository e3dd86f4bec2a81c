// SPDX-License-Identifier: Apache-2.0
// BARs that stay mapped, also after their device's fd is closed. some_memory() maps their addresses for DMA.
#include <sys/mman.h>

#include <algorithm>

#include "transcript/operations.hpp"
#include "transcript/text.hpp"

namespace postern::transcript {
namespace {

constexpr std::uint64_t page = 4096;

void* address_of(std::size_t place) {
  return reinterpret_cast<void*>(Memory::start + Memory::bars + place * Memory::bar_length);
}

// A place that is mapped, or one that is not. There must be one.
std::size_t some_place(World& world, bool is_mapped) {
  std::size_t place = world.random.below(world.bars.size());
  while ((world.bars[place] != 0) != is_mapped) place = (place + 1) % world.bars.size();
  return place;
}

bool has_bar(const World& world) {
  return std::any_of(world.bars.begin(), world.bars.end(), [](std::uint64_t length) { return length != 0; });
}
bool has_place(const World& world) { return std::count(world.bars.begin(), world.bars.end(), 0) != 0; }

std::string map(World& world) {
  if (!has_place(world)) return "every place has a BAR";
  const Place& device = any_device(world);
  const std::size_t place = some_place(world, false);
  const std::uint64_t offset = world.random.pick<std::uint64_t>({0, 0, 0, 0, 0x1000, 0x3000});
  const std::uint64_t length = world.random.pick<std::uint64_t>({0x4000 - offset, 0x4000 - offset, 0x1000, 0x800});
  const int protection = world.random.pick({PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE});
  const std::intptr_t mapped =
      world.kernel.mmap(address_of(place), length, protection, MAP_SHARED | MAP_FIXED_NOREPLACE, device.fd, offset);
  if (!is_errno(mapped)) world.bars[place] = (length + page - 1) & ~(page - 1);
  return fmt::format("{} maps BAR 0 at {:#x} length {:#x} protection {} in place {} -> {}", device.name, offset, length,
                     protection, place, is_errno(mapped) ? outcome(mapped) : "ok");
}

// Unmaps all of a BAR, or a page of it.
std::string unmap(World& world) {
  if (!has_bar(world)) return "no place has a BAR";
  const std::size_t place = some_place(world, true);
  const bool whole = world.random.chance(70);
  const std::uint64_t offset = whole ? 0 : world.random.below(Memory::bar_length / page) * page;
  const std::uint64_t length = whole ? Memory::bar_length : page;
  const int result = world.kernel.munmap(static_cast<std::byte*>(address_of(place)) + offset, length);
  if (whole) world.bars[place] = 0;
  return fmt::format("unmap {:#x} length {:#x} of place {} -> {}", offset, length, place, outcome(result));
}

bool may_map(const World& world) { return has_device(world) && has_place(world); }

constexpr Operation operations[] = {{map, 24, 24, may_map}, {unmap, 8, 8, has_bar}};

}  // namespace

std::span<const Operation> bar_operations() { return operations; }

}  // namespace postern::transcript
