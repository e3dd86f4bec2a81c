// SPDX-License-Identifier: Apache-2.0
// Ioctls of a device: information, features, resets. Regions and interrupts are in files of their own.
#include <linux/vfio.h>

#include <cstring>

#include "transcript/operations.hpp"
#include "transcript/text.hpp"

namespace postern::transcript {
namespace {

std::string get_info(World& world) {
  const Place& device = any_device(world);
  Roomy<vfio_device_info> room_for(world);
  auto& info = room_for.request;
  std::memset(&info, 0xee, sizeof info);
  info.argsz = argsz(world, world.random.chance(50) ? sizeof info : offsetof(vfio_device_info, cap_offset));
  const std::uint32_t given = info.argsz;
  const int result = world.kernel.ioctl(device.fd, VFIO_DEVICE_GET_INFO, &info);
  return fmt::format("{} GET_INFO argsz {} -> {}, argsz {} flags {:#x} regions {} irqs {} cap {:#x}", device.name,
                     given, outcome(result), info.argsz, info.flags, info.num_regions, info.num_irqs, info.cap_offset);
}

std::string get_region_info(World& world) {
  const Place& device = any_device(world);
  alignas(8) std::byte answer[64];
  std::memset(answer, 0xee, sizeof answer);
  auto& info = *reinterpret_cast<vfio_region_info*>(answer);
  info.argsz = world.random.pick({0U, 31U, 32U, 32U, 36U, 39U, 40U, 48U, 64U, 64U});
  info.index = static_cast<std::uint32_t>(world.random.chance(95) ? world.random.below(11) : 0xffffffff);
  const std::uint32_t given = info.argsz;
  const std::uint32_t index = info.index;
  const int result = world.kernel.ioctl(device.fd, VFIO_DEVICE_GET_REGION_INFO, answer);
  return fmt::format(
      "{} GET_REGION_INFO argsz {} index {} -> {}, argsz {} flags {:#x} cap {:#x} size {:#x} at {:#x}, {}", device.name,
      given, index, outcome(result), info.argsz, info.flags, info.cap_offset, info.size, info.offset, digest(answer));
}

std::string get_irq_info(World& world) {
  const Place& device = any_device(world);
  Roomy<vfio_irq_info> room_for(world);
  auto& info = room_for.request;
  std::memset(&info, 0xee, sizeof info);
  info.argsz = argsz(world, sizeof info);
  info.index = static_cast<std::uint32_t>(world.random.below(7));
  const std::uint32_t index = info.index;
  const int result = world.kernel.ioctl(device.fd, VFIO_DEVICE_GET_IRQ_INFO, &info);
  return fmt::format("{} GET_IRQ_INFO argsz {} index {} -> {}, flags {:#x} count {:#x}", device.name, info.argsz, index,
                     outcome(result), info.flags, info.count);
}

std::string reset(World& world) {
  const Place& device = any_device(world);
  return device.name + " RESET -> " + outcome(world.kernel.ioctl(device.fd, VFIO_DEVICE_RESET, nullptr));
}

// Probes features. Uses only those without an effect, and low power, in which mapped BARs do not respond.
std::string feature(World& world) {
  const Place& device = any_device(world);
  alignas(8) std::byte request[64] = {};
  auto& head = *reinterpret_cast<vfio_device_feature*>(request);
  head.argsz = argsz(world, world.random.pick<std::size_t>({sizeof head, sizeof request}));
  head.flags = static_cast<std::uint32_t>(world.random.below(14)) | VFIO_DEVICE_FEATURE_PROBE;
  head.flags |= world.random.pick<std::uint32_t>(
      {0, VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_SET, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_GET});
  if (world.random.chance(5)) head.flags |= 1U << 20;
  if (world.random.chance(10)) {
    head.flags = VFIO_DEVICE_FEATURE_MIGRATION | VFIO_DEVICE_FEATURE_GET;
    if (world.random.chance(50)) head.flags |= VFIO_DEVICE_FEATURE_SET;
  }
  if (world.random.chance(15)) {
    head.flags = VFIO_DEVICE_FEATURE_SET | world.random.pick<std::uint32_t>({VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
                                                                             VFIO_DEVICE_FEATURE_LOW_POWER_EXIT});
  }
  const int result = world.kernel.ioctl(device.fd, VFIO_DEVICE_FEATURE, request);
  return fmt::format("{} FEATURE argsz {} flags {:#x} -> {}", device.name, head.argsz, head.flags, outcome(result));
}

// Only for A, which has no bus to reset: the buses of the others differ between hosts.
std::string hot_reset(World& world) {
  Place& device = any_device(world);
  if (device.function != 0) return device.name + " is not hot-reset";
  alignas(8) std::byte request[64] = {};
  auto& info = *reinterpret_cast<vfio_pci_hot_reset_info*>(request);
  info.argsz = argsz(world, sizeof info);
  const std::uint32_t given = info.argsz;
  if (world.random.chance(50)) {
    const int result = world.kernel.ioctl(device.fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, request);
    return fmt::format("{} GET_PCI_HOT_RESET_INFO argsz {} -> {}", device.name, given, outcome(result));
  }
  auto& reset = *reinterpret_cast<vfio_pci_hot_reset*>(request);
  reset.flags = world.random.chance(10) ? 1 : 0;
  const int result = world.kernel.ioctl(device.fd, VFIO_DEVICE_PCI_HOT_RESET, request);
  return fmt::format("{} PCI_HOT_RESET argsz {} flags {} -> {}", device.name, given, reset.flags, outcome(result));
}

constexpr Operation operations[] = {
    {get_info, 8, 8, has_device}, {get_region_info, 22, 22, has_device}, {get_irq_info, 14, 14, has_device},
    {reset, 6, 6, has_device},    {feature, 10, 10, has_device},         {hot_reset, 3, 3, has_device},
};

}  // namespace

std::span<const Operation> device_operations() { return operations; }

}  // namespace postern::transcript
