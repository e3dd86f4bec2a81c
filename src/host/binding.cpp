// SPDX-License-Identifier: Apache-2.0
// Moving a device between drivers through its driver_override.
#include <fmt/format.h>

#include <array>
#include <postern/binding.hpp>
#include <utility>

#include "base/log.hpp"
#include "host/binding_lock.hpp"
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
  CallFailed what{.result = result, .object = fmt::format("driver of {}", device)};
  if (result == -EACCES || result == -EPERM) what.remedy = "run as root: changing a device's driver needs it";
  if (result == -EROFS) {
    what.reason = "sysfs is mounted read-only here, as containers have it";
    what.remedy =
        "change the driver outside of the container; or give it a /sys that can be written "
        "(\"mount -o remount,rw /sys\" as root, where that is allowed)";
  }
  return call_failure("write " + path, std::move(what));
}

constexpr std::int64_t bridge_class = 0x0604;  // and subclass, of a PCI bridge

constexpr const char* changed_by_another =
    "another program changes its driver, too: see which, and let one alone bind the device";

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

// Takes the device from this driver, and returns when the driver has let go. From no other: where somebody else has
// moved the device meanwhile, the kernel answers ENODEV.
Result<void> unbind(Kernel& kernel, const std::string& bus, const std::string& driver, const std::string& device) {
  const std::string path = fmt::format("/sys/bus/{}/drivers/{}/unbind", bus, driver);
  auto done = write_sysfs(kernel, path, device, device);
  if (done || done.error().code() != ENODEV) return done;
  return call_failure("write " + path, {.result = -ENODEV,
                                        .object = fmt::format("driver of {}", device),
                                        .reason = fmt::format("{} has it no longer", driver),
                                        .remedy = changed_by_another});
}

Result<void> set_override(Kernel& kernel, const std::string& path, const std::optional<std::string>& driver,
                          const std::string& device) {
  // An empty line takes the override away (driver_set_override, Linux 5.19).
  return write_sysfs(kernel, path + "/driver_override", driver.value_or("\n"), device);
}

Result<void> probe(Kernel& kernel, const std::string& bus, const std::string& device) {
  return write_sysfs(kernel, fmt::format("/sys/bus/{}/drivers_probe", bus), device, device);
}

// Before anything is done: of a driver that is not loaded a device gets nothing.
Result<void> require_driver(Kernel& kernel, const std::string& bus, const std::string& driver, std::string object) {
  FileStatus status;
  const int result = kernel.status(fmt::format("/sys/bus/{}/drivers/{}", bus, driver), status);
  if (result >= 0) return {};
  CallFailed what{.result = result, .object = std::move(object)};
  if (result == -ENOENT) {
    what.result = -ENODEV;
    what.reason = fmt::format("the {} bus has no driver {}", bus, driver);
    what.remedy = fmt::format("load it with \"modprobe {}\"", driver);
    return refusal(std::move(what));
  }
  return call_failure("stat", std::move(what));
}

// Vendor and device, and those of the subsystem, as pci.ids has them; empty where the bus has none.
std::string read_ids(Kernel& kernel, const std::string& path) {
  std::string ids;
  constexpr std::array<std::pair<const char*, const char*>, 4> files = {
      {{"vendor", ""}, {"device", ":"}, {"subsystem_vendor", " "}, {"subsystem_device", ":"}}};
  for (const auto& [file, mark] : files) {
    const auto id = sysfs::number(kernel, fmt::format("{}/{}", path, file));
    if (id) ids += fmt::format("{}{:04x}", mark, *id);
  }
  return ids;
}

// What names in a binding become is a path: of a device or driver, and nothing else.
Result<void> require_names(const Binding& binding) {
  const bool good = sysfs::is_entry(binding.bus) && sysfs::is_entry(binding.device) &&
                    (!binding.driver || sysfs::is_entry(*binding.driver)) &&
                    (!binding.driver_override || sysfs::is_entry(*binding.driver_override));
  if (good) return {};
  return refusal({.result = -EINVAL,
                  .object = fmt::format("driver of {}", binding.device),
                  .reason = fmt::format("bus \"{}\", device \"{}\", driver \"{}\", override \"{}\": one of "
                                        "these is no name",
                                        binding.bus, binding.device, binding.driver.value_or("none"),
                                        binding.driver_override.value_or("none"))});
}

std::string bind_file(const std::string& bus, const std::string& driver) {
  return fmt::format("/sys/bus/{}/drivers/{}/bind", bus, driver);
}

Result<void> bind_again(Kernel& kernel, const Binding& binding) {
  if (!binding.driver) return {};
  return write_sysfs(kernel, bind_file(binding.bus, *binding.driver), binding.device, binding.device);
}

// Gives a device that has no driver to this one. drivers_probe would hide the errno of the driver's probe function.
Result<void> bind_to(Kernel& kernel, const HostDevice& device, const std::string& driver) {
  const std::string file = bind_file(device.bus, driver);
  CallFailed what{.result = kernel.write_file(file, device.name),
                  .object = fmt::format("bind {} to {}", device.name, driver)};
  if (what.result >= 0) return {};
  auto now = read_driver(kernel, device_path(device.bus, device.name), device.name);
  if (!now) return failure_of(now);
  if (*now) {
    what.reason = fmt::format("{} has not taken it: it is bound to {}", driver, **now);
    what.remedy = changed_by_another;
  } else if (auto group = require_group(kernel, device); !group && is_vfio_driver(driver)) {
    // vfio_group_find_or_alloc
    what.reason = group.error().reason();
    what.remedy = group.error().remedy();
  } else if (sysfs::number(kernel, device.sysfs_path + "/class").value_or(0) >> 8 == bridge_class) {
    what.reason = fmt::format("{} takes no bridge", driver);  // vfio_pci_core_register_device
    what.remedy = "pass through what is behind it";
  } else {
    what.reason = fmt::format("{} refused the device", driver);
    what.remedy = "see the kernel's log (dmesg) for the reason";
  }
  return call_failure("write " + file, std::move(what));
}

// Puts back what a bind to `driver` has changed, as far as it still is as that left it. What somebody else has changed
// since is theirs.
Result<void> undo(Kernel& kernel, const Binding& before, const std::string& driver) {
  const std::string path = device_path(before.bus, before.device);
  if (read_override(kernel, path) != driver) return {};
  if (auto done = set_override(kernel, path, before.driver_override, before.device); !done) return done;
  auto now = read_driver(kernel, path, before.device);
  if (!now) return failure_of(now);
  if (*now && **now != driver) return {};
  if (*now) {
    if (auto done = unbind(kernel, before.bus, driver, before.device); !done) return done;
  }
  return bind_again(kernel, before);
}

Result<void> bind_anew(Kernel& kernel, const HostDevice& device, const Binding& before, const std::string& driver) {
  const std::string path = device_path(device.bus, device.name);
  if (auto done = set_override(kernel, path, driver, device.name); !done) return done;
  if (before.driver) {
    if (auto done = unbind(kernel, device.bus, *before.driver, device.name); !done) return done;
  }
  return bind_to(kernel, device, driver);
}

}  // namespace

Result<Binding> read_binding(Kernel& kernel, const HostDevice& device) {
  Binding binding{.bus = device.bus, .device = device.name, .driver = {}, .driver_override = {}, .ids = {}};
  if (auto named = require_names(binding); !named) return failure_of(named);
  const std::string path = device_path(device.bus, device.name);
  auto driver = read_driver(kernel, path, device.name);
  if (!driver) return failure_of(driver);
  binding.driver = std::move(*driver);
  binding.driver_override = read_override(kernel, path);
  binding.ids = read_ids(kernel, path);
  return binding;
}

Result<Binding> bind_to_driver(Kernel& kernel, const HostDevice& device, const std::string& driver) {
  auto named =
      require_names({.bus = device.bus, .device = device.name, .driver = driver, .driver_override = {}, .ids = {}});
  if (!named) return failure_of(named);
  const auto lock = BindingLock::take(kernel, device.bus, device.name);
  if (!lock) return tl::unexpected<Error>(lock.error());
  auto before = read_binding(kernel, device);
  if (!before || before->driver == driver) return before;

  if (auto there = require_driver(kernel, device.bus, driver, fmt::format("bind {} to {}", device.name, driver));
      !there)
    return failure_of(there);
  auto bound = bind_anew(kernel, device, *before, driver);
  if (bound) return before;
  log_failure(undo(kernel, *before, driver));
  return failure_of(bound);
}

Result<void> restore_binding(Kernel& kernel, const Binding& binding) {
  if (auto named = require_names(binding); !named) return named;
  const auto lock = BindingLock::take(kernel, binding.bus, binding.device);
  if (!lock) return tl::unexpected<Error>(lock.error());
  const std::string path = device_path(binding.bus, binding.device);
  if (const std::string ids = read_ids(kernel, path); !binding.ids.empty() && !ids.empty() && ids != binding.ids) {
    return refusal({.result = -ENODEV,
                    .object = fmt::format("driver of {}", binding.device),
                    .reason = fmt::format("another device is there now: {}, and not {}", ids, binding.ids),
                    .remedy = "forget what was remembered of the one that has left"});
  }
  if (binding.driver) {
    const std::string object = fmt::format("give {} back to {}", binding.device, *binding.driver);
    if (auto there = require_driver(kernel, binding.bus, *binding.driver, object); !there) return there;
  }
  if (auto done = set_override(kernel, path, binding.driver_override, binding.device); !done) return done;
  auto now = read_driver(kernel, path, binding.device);
  if (!now) return failure_of(now);
  if (*now == binding.driver) return {};
  if (*now) {
    if (auto done = unbind(kernel, binding.bus, **now, binding.device); !done) return done;
  }
  return bind_again(kernel, binding);
}

Result<void> bind_to_default_driver(Kernel& kernel, const HostDevice& device) {
  auto named =
      require_names({.bus = device.bus, .device = device.name, .driver = {}, .driver_override = {}, .ids = {}});
  if (!named) return named;
  const auto lock = BindingLock::take(kernel, device.bus, device.name);
  if (!lock) return tl::unexpected<Error>(lock.error());
  auto now = read_binding(kernel, device);
  if (!now) return failure_of(now);
  const std::string path = device_path(device.bus, device.name);
  if (auto done = set_override(kernel, path, std::nullopt, device.name); !done) return done;
  if (now->driver) {
    if (auto done = unbind(kernel, device.bus, *now->driver, device.name); !done) return done;
  }
  return probe(kernel, device.bus, device.name);
}

}  // namespace postern
