// SPDX-License-Identifier: Apache-2.0
// What besides interrupts has eventfds: VFIO_DEVICE_IOEVENTFD, and the wake-up from low power. Also signals for the
// kernel to take.
#include <linux/vfio.h>
#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <postern/deadline.hpp>

#include "transcript/operations.hpp"
#include "transcript/text.hpp"

namespace postern::transcript {
namespace {

using namespace std::chrono_literals;

// Few different ones, so that some are added twice, or removed. Registers that are reserved, doorbells of queues that
// are not there, and the surroundings of the MSI-X table: a disk ignores what is written there.
std::string ioeventfd(World& world) {
  const Place& device = any_device(world);
  Roomy<vfio_device_ioeventfd> room_for(world);
  auto& request = room_for.request;
  request.argsz = argsz(world, offsetof(vfio_device_ioeventfd, reserved));
  request.flags = world.random.chance(60) ? 4 : world.random.pick({0U, 1U, 2U, 3U, 8U, 8U, 12U, 16U, 1U << 20});
  const std::uint64_t index = world.random.chance(85) ? 0 : world.random.pick<std::uint64_t>({1, 2, 5, 6, 7, 9, 255});
  const std::uint64_t at =
      world.random.chance(50)
          ? 0x200
          : world.random.pick<std::uint64_t>({0x201, 0x208, 0x1ff8, 0x1ffc, 0x1ffe, 0x2000, 0x240c, 0x240f, 0x2410,
                                              0x3ffc, 0x3ffe, 0x4000, (std::uint64_t{1} << 40) - 4});
  request.offset = (index << 40) + at;
  request.data = world.random.below(2);
  const SomeFd eventfd = world.random.chance(25) ? SomeFd{-1, "-1"} : some_eventfd(world, true);
  request.fd = eventfd.fd;
  request.reserved = world.random.chance(5) ? 1 : 0;
  const int result = world.kernel.ioctl(device.fd, VFIO_DEVICE_IOEVENTFD, &request);
  if (result == 0 && request.fd >= 0) world.may_take_signals = true;
  return fmt::format("{} IOEVENTFD argsz {} flags {:#x} region {} at {:#x} data {} {} -> {}", device.name,
                     request.argsz, request.flags, index, at, request.data, eventfd.name, outcome(result));
}

// A real kernel suspends the device some time later, and the next call ends low power. The device never enters it this
// way here, since nobody knows when.
std::string low_power_with_wakeup(World& world) {
  const Place& device = any_device(world);
  vfio_device_low_power_entry_with_wakeup entry{};
  alignas(8) std::byte request[64] = {};
  auto& head = *reinterpret_cast<vfio_device_feature*>(request);
  head.argsz = argsz(world, sizeof head + sizeof entry);
  head.flags = VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP | VFIO_DEVICE_FEATURE_SET;
  if (world.random.chance(10)) head.flags |= VFIO_DEVICE_FEATURE_PROBE;
  if (world.random.chance(10)) head.flags ^= VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_GET;
  entry.wakeup_eventfd = -1;
  entry.reserved = world.random.chance(10) ? 1 : 0;
  std::memcpy(request + sizeof head, &entry, sizeof entry);
  const int result = world.kernel.ioctl(device.fd, VFIO_DEVICE_FEATURE, request);
  return fmt::format("{} LOW_POWER_ENTRY_WITH_WAKEUP argsz {} flags {:#x} -> {}", device.name, head.argsz, head.flags,
                     outcome(result));
}

// Signals the last eventfd. Who unmasks INTx or writes a register by it takes the signal: Linux at once, the simulated
// kernel soon.
std::string signal(World& world) {
  const Place& eventfd = world.eventfds.back();
  std::uint64_t count = 1;
  if (::write(eventfd.fd, &count, sizeof count) != sizeof count) return "no signal for " + eventfd.name;
  const auto is_taken = [&] {
    pollfd look{.fd = eventfd.fd, .events = POLLIN, .revents = 0};
    return ::poll(&look, 1, 0) == 0;
  };
  const auto timeout = world.may_take_signals ? 1s : 0s;
  if (poll_until(Deadline(timeout), 100us, is_taken)) return "signal for " + eventfd.name + " -> taken";
  world.may_take_signals = false;
  const bool is_read = ::read(eventfd.fd, &count, sizeof count) == sizeof count;
  return fmt::format("signal for {} -> {} left", eventfd.name, is_read ? count : 0);
}

bool has_device_and_eventfd(const World& world) { return has_device(world) && world.eventfds.back().is_open(); }

constexpr Operation operations[] = {
    {ioeventfd, 16, 16, has_device},
    {low_power_with_wakeup, 5, 5, has_device},
    {signal, 8, 8, has_device_and_eventfd},
};

}  // namespace

std::span<const Operation> eventfd_operations() { return operations; }

}  // namespace postern::transcript
