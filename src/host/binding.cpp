// SPDX-License-Identifier: Apache-2.0
// Moving a device between drivers through its driver_override.
#include <fmt/format.h>

#include <postern/binding.hpp>

#include "base/log.hpp"
#include "host/requirements.hpp"
#include "host/sysfs.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

std::string device_path(const std::string& bus, const std::string& device) {
  return fmt::format("/sys/bus/{}/devices/{}", bus, device);
}

Result<void> write_sysfs(Kernel& kernel, const std::string& path, const std::string& text, const std::string& device) {
  const int result = kernel.write_file(path, text);
  if (result >= 0) return {};
  const bool denied = result == -EACCES || result == -EPERM;
  return call_failure("write " + path, {.result = result,
                                        .object = fmt::format("driver of {}", device),
                                        .remedy = denied ? "run as root: changing a device's driver needs it" : ""});
}

// None where it is bound to nothing; that it cannot be read is no answer.
Result<std::optional<std::string>> read_driver(Kernel& kernel, const std::string& path, const std::string& device) {
  std::string driver;
  const int result = sysfs::link_name(kernel, path + "/driver", driver);
  if (result == -ENOENT) return std::nullopt;
  if (result < 0) return call_failure("readlink", {.result = result, .object = fmt::format("driver of {}", device)});
  return driver;
}

// The kernel shows an override that is not set as "(null)".
std::optional<std::string> read_override(Kernel& kernel, const std::string& path) {
  auto text = sysfs::text(kernel, path + "/driver_override");
  if (!text || text->empty() || *text == "(null)") return std::nullopt;
  return text;
}

// Takes the device from its driver, if it has one. The write returns when the driver has let go.
Result<void> unbind(Kernel& kernel, const std::string& path, const std::string& device) {
  auto driver = read_driver(kernel, path, device);
  if (!driver) return failure_of(driver);
  if (!*driver) return {};
  return write_sysfs(kernel, path + "/driver/unbind", device, device);
}

Result<void> set_override(Kernel& kernel, const std::string& path, const std::optional<std::string>& driver,
                          const std::string& device) {
  // An empty line takes the override away (driver_set_override, Linux 5.19).
  return write_sysfs(kernel, path + "/driver_override", driver.value_or("\n"), device);
}

Result<void> probe(Kernel& kernel, const std::string& bus, const std::string& device) {
  return write_sysfs(kernel, fmt::format("/sys/bus/{}/drivers_probe", bus), device, device);
}

}  // namespace

Result<Binding> bind_to_driver(Kernel& kernel, const HostDevice& device, const std::string& driver) {
  const std::string path = device_path(device.bus, device.name);
  auto driver_before = read_driver(kernel, path, device.name);
  if (!driver_before) return failure_of(driver_before);
  Binding before{.bus = device.bus,
                 .device = device.name,
                 .driver = std::move(*driver_before),
                 .driver_override = read_override(kernel, path)};
  if (before.driver == driver) return before;

  FileStatus status;
  if (const int result = kernel.status(fmt::format("/sys/bus/{}/drivers/{}", device.bus, driver), status); result < 0) {
    CallFailed what{.result = result, .object = fmt::format("bind {} to {}", device.name, driver)};
    if (result == -ENOENT) {
      what.result = -ENODEV;
      what.reason = fmt::format("the {} bus has no driver {}", device.bus, driver);
      what.remedy = fmt::format("load it with \"modprobe {}\"", driver);
      return refusal(std::move(what));
    }
    return call_failure("stat", std::move(what));
  }

  auto bound = [&]() -> Result<void> {
    if (auto done = set_override(kernel, path, driver, device.name); !done) return done;
    if (auto done = unbind(kernel, path, device.name); !done) return done;
    if (auto done = probe(kernel, device.bus, device.name); !done) return done;
    // drivers_probe answers well even when the driver's probe function refused; the reason is in the kernel's log
    // alone.
    auto now = read_driver(kernel, path, device.name);
    if (!now) return failure_of(now);
    if (*now == driver) return {};
    // A VFIO driver refuses a device without a group (vfio_group_find_or_alloc).
    if (auto group = require_group(device); !group && is_vfio_driver(driver)) return failure_of(group);
    return refusal({.result = -EBUSY,
                    .object = fmt::format("bind {} to {}", device.name, driver),
                    .reason = "the driver refused the device",
                    .remedy = "see the kernel's log (dmesg) for the reason"});
  }();
  if (bound) return before;
  log_failure(restore_binding(kernel, before));
  return failure_of(bound);
}

Result<void> restore_binding(Kernel& kernel, const Binding& binding) {
  const std::string path = device_path(binding.bus, binding.device);
  if (auto done = set_override(kernel, path, binding.driver_override, binding.device); !done) return done;
  auto now = read_driver(kernel, path, binding.device);
  if (!now) return failure_of(now);
  if (binding.driver && *now == binding.driver) return {};
  if (auto done = unbind(kernel, path, binding.device); !done) return done;
  if (!binding.driver) return {};
  return write_sysfs(kernel, fmt::format("/sys/bus/{}/drivers/{}/bind", binding.bus, *binding.driver), binding.device,
                     binding.device);
}

Result<void> bind_to_default_driver(Kernel& kernel, const HostDevice& device) {
  const std::string path = device_path(device.bus, device.name);
  if (auto done = set_override(kernel, path, std::nullopt, device.name); !done) return done;
  if (auto done = unbind(kernel, path, device.name); !done) return done;
  return probe(kernel, device.bus, device.name);
}

}  // namespace postern
