// SPDX-License-Identifier: Apache-2.0
// VFIO_DEVICE_SET_IRQS in all its forms, and the signals in the eventfds.
#include <linux/vfio.h>
#include <unistd.h>

#include <cstring>

#include "transcript/operations.hpp"
#include "transcript/text.hpp"

namespace postern::transcript {
namespace {

std::uint32_t some_count(World& world, std::uint32_t index) {
  if (world.random.chance(5)) return world.random.pick({0xffffffffU, 66U, 1000U, 0x80000000U});
  if (index != VFIO_PCI_MSIX_IRQ_INDEX)
    return world.random.chance(80) ? 1 : static_cast<std::uint32_t>(world.random.below(3));
  return world.random.chance(90) ? static_cast<std::uint32_t>(world.random.below(5)) : 65;
}

std::string set_irqs(World& world) {
  const Place& device = any_device(world);
  alignas(8) std::byte request[512] = {};
  auto& set = *reinterpret_cast<vfio_irq_set*>(request);
  set.index = world.random.pick({0U, 0U, 0U, 1U, 2U, 2U, 2U, 2U, 2U, 3U, 4U, 5U});
  set.start = world.random.chance(75) ? 0 : static_cast<std::uint32_t>(world.random.pick({1, 2, 3, 60, 64, 65, 100}));
  set.count = some_count(world, set.index);
  const std::uint32_t data = world.random.pick({1U, 1U, 2U, 4U, 4U, 4U, 4U});
  const std::uint32_t action = world.random.chance(70) || set.index == VFIO_PCI_MSIX_IRQ_INDEX
                                   ? VFIO_IRQ_SET_ACTION_TRIGGER
                                   : world.random.pick({8U, 16U, 32U});
  set.flags = data | action;
  if (world.random.chance(10)) set.count = 0;
  if (world.random.chance(4)) set.flags = static_cast<std::uint32_t>(world.random.below(128));
  const bool unmasks = (set.flags & VFIO_IRQ_SET_ACTION_UNMASK) != 0;
  std::string what;
  std::size_t size = 0;
  if ((set.flags & VFIO_IRQ_SET_DATA_BOOL) != 0) {
    size = set.count;
    for (std::size_t i = 0; i < 65; ++i) set.data[i] = static_cast<std::uint8_t>(world.random.below(2));
    for (std::size_t i = 0; i < set.count && i < 4; ++i) what += " " + std::to_string(set.data[i]);
  } else if ((set.flags & VFIO_IRQ_SET_DATA_EVENTFD) != 0) {
    size = std::size_t{4} * set.count;
    for (std::size_t i = 0; i < 65; ++i) {
      // Most vectors of a large set get no eventfd.
      const SomeFd fd = i < 4 || world.random.chance(5) ? some_eventfd(world, unmasks) : SomeFd{-1, "-1"};
      std::memcpy(set.data + i * sizeof fd.fd, &fd.fd, sizeof fd.fd);
      if (i < set.count && (i < 4 || fd.fd != -1)) what += " " + fd.name;
    }
  }
  set.argsz = argsz(world, sizeof set + std::min(size, sizeof request - sizeof set));
  const int result = world.kernel.ioctl(device.fd, VFIO_DEVICE_SET_IRQS, request);
  if (result == 0 && unmasks && (set.flags & VFIO_IRQ_SET_DATA_EVENTFD) != 0) world.may_take_signals = true;
  return fmt::format("{} SET_IRQS argsz {} flags {:#x} index {} start {} count {}{} -> {}", device.name, set.argsz,
                     set.flags, set.index, set.start, set.count, what, outcome(result));
}

std::string read_eventfds(World& world) {
  std::string line = "eventfds";
  for (const Place& place : world.eventfds) {
    std::uint64_t count = 0;
    if (!place.is_open()) {
      line += " -";
    } else if (::read(place.fd, &count, sizeof count) == sizeof count) {
      line += " " + std::to_string(count);
    } else {
      line += " 0";
    }
  }
  return line;
}

constexpr Operation operations[] = {
    {set_irqs, 60, 60, has_device},
    {read_eventfds, 12, 12, has_device},
};

}  // namespace

std::span<const Operation> irq_operations() { return operations; }

}  // namespace postern::transcript
