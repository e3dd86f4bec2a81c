// SPDX-License-Identifier: Apache-2.0
// Low power: three features of VFIO that are set.
#include <postern/low_power.hpp>

#include <fmt/format.h>
#include <linux/vfio.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "kernel/ioctl.hpp"

namespace postern {
namespace {

Result<void> set_low_power(const Device& device, std::uint32_t feature, std::span<const std::uint8_t> bytes,
                           const char* step) {
  auto set = device.set_feature(feature, bytes);
  if (set || set.error().refused()) return set;
  Error::Details details = set.error().details();
  details.object = fmt::format("{}: {} low power", device.name(), step);
  if (details.code == ENOTTY) details.reason = "the kernel or the device has no low power";
  if (details.code == EINVAL) {
    details.reason = bytes.empty() ? "the device is in low power already"
                                   : "the device is in low power already, or the event is not an eventfd";
  }
  return failure(std::move(details));
}

}  // namespace

Result<void> enter_low_power(const Device& device) {
  return set_low_power(device, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY, {}, "enter");
}

Result<void> enter_low_power(const Device& device, EventRef wakeup) {
  if (!wakeup.is_valid()) {
    return refusal(
        {.result = wakeup.is_none() ? -EINVAL : -EBADF,
         .kind = ErrorKind::invalid_argument,
         .object = fmt::format("{}: enter low power", device.name()),
         .reason = wakeup.is_none() ? "no event is given" : "the event was moved from, or is no descriptor"});
  }
  const vfio_device_low_power_entry_with_wakeup entry{.wakeup_eventfd = wakeup.fd(), .reserved = 0};
  std::array<std::uint8_t, sizeof entry> bytes{};
  std::memcpy(bytes.data(), &entry, sizeof entry);
  return set_low_power(device, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP, bytes, "enter");
}

Result<void> exit_low_power(const Device& device) {
  return set_low_power(device, VFIO_DEVICE_FEATURE_LOW_POWER_EXIT, {}, "leave");
}

}  // namespace postern
