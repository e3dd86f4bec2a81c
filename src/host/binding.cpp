// SPDX-License-Identifier: Apache-2.0
// Moving a device between drivers through its driver_override.
#include <fmt/format.h>

#include <array>
#include <postern/binding.hpp>
#include <utility>

#include "base/on_throw.hpp"
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

// The driver that the text of a driver_override names; empty where it is not set, which the kernel shows as "(null)".
std::string_view driver_in(std::string_view text) noexcept {
  text = text.substr(0, text.find_last_not_of(" \n") + 1);
  return text == "(null)" ? std::string_view() : text;
}

std::optional<std::string> read_override(Kernel& kernel, const std::string& path) {
  const std::string text = sysfs::text(kernel, path + "/driver_override").value_or("");
  const std::string_view driver = driver_in(text);
  return driver.empty() ? std::nullopt : std::optional(std::string(driver));
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

Result<Binding> read_binding(Kernel& kernel, const std::string& bus, const std::string& device) {
  Binding binding{.bus = bus, .device = device, .driver = {}, .driver_override = {}, .ids = {}};
  if (auto named = require_names(binding); !named) return failure_of(named);
  const std::string path = device_path(bus, device);
  auto driver = read_driver(kernel, path, device);
  if (!driver) return failure_of(driver);
  binding.driver = std::move(*driver);
  binding.driver_override = read_override(kernel, path);
  binding.ids = read_ids(kernel, path);
  return binding;
}

// The writes that move a device from one driver to another, with all text for them made before the first: from then on
// only an error's text takes memory, and undo() takes none.
class Move {
 public:
  // From where `before` says, to this driver (none: the device is left without), with this override (none: the device's
  // ids choose).
  Move(Kernel& kernel, Binding before, const std::optional<std::string>& driver,
       const std::optional<std::string>& driver_override)
      : kernel_(kernel),
        before_(std::move(before)),
        driver_(driver.value_or("")),
        override_file_(device_path(before_.bus, before_.device) + "/driver_override"),
        // An empty line takes the override away (driver_set_override, Linux 5.19).
        override_(driver_override.value_or("\n")),
        override_before_(before_.driver_override.value_or("\n")),
        leave_file_(before_.driver ? driver_file(*before_.driver, "unbind") : ""),
        return_file_(before_.driver ? driver_file(*before_.driver, "bind") : ""),
        enter_file_(driver ? driver_file(*driver, "bind") : ""),
        leave_again_file_(driver ? driver_file(*driver, "unbind") : "") {
    override_now_.reserve(4096);  // all that a file of sysfs can have
  }
  // To the driver that the kernel chooses. drivers_probe gives no errno of the driver's.
  void let_kernel_choose() { enter_file_ = fmt::format("/sys/bus/{}/drivers_probe", before_.bus); }

  // Undoes what it did where a step fails, or where memory runs out.
  [[nodiscard]] Result<void> make() {
    const OnThrow undo_all([this]() noexcept { (void)undo(); });
    auto done = write_sysfs(kernel_, override_file_, override_, before_.device);
    if (done && before_.driver != driver_) done = leave();
    if (done && before_.driver != driver_ && !enter_file_.empty()) done = enter();
    if (done || undo()) return done;
    const Error& error = done.error();
    return failure({.code = error.code(),
                    .operation = error.operation(),
                    .object = error.object(),
                    .reason = fmt::format("{}{}the device is left without a driver", error.reason(),
                                          error.reason().empty() ? "" : "; "),
                    .remedy = error.remedy(),
                    .causes = {}});
  }

 private:
  [[nodiscard]] std::string driver_file(const std::string& driver, std::string_view file) const {
    return fmt::format("/sys/bus/{}/drivers/{}/{}", before_.bus, driver, file);
  }

  // Returns when the driver has let go. From no other: where somebody else has moved the device meanwhile, the kernel
  // answers ENODEV.
  [[nodiscard]] Result<void> leave() {
    if (leave_file_.empty()) return {};
    auto done = write_sysfs(kernel_, leave_file_, before_.device, before_.device);
    if (done || done.error().code() != ENODEV) return done;
    return call_failure("write " + leave_file_, {.result = -ENODEV,
                                                 .object = fmt::format("driver of {}", before_.device),
                                                 .reason = fmt::format("{} has it no longer", *before_.driver),
                                                 .remedy = changed_by_another});
  }

  // The driver's own file tells the errno of its probe function (before Linux 5.11: ENODEV for each).
  [[nodiscard]] Result<void> enter() {
    CallFailed what{.object = fmt::format("bind {} to {}", before_.device, driver_)};
    what.result = kernel_.write_file(enter_file_, before_.device);
    if (what.result >= 0) return {};
    const std::string path = device_path(before_.bus, before_.device);
    auto now = read_driver(kernel_, path, before_.device);
    if (!now) return failure_of(now);
    if (*now) {
      what.reason = fmt::format("{} has not taken it: it is bound to {}", driver_, **now);
      what.remedy = changed_by_another;
    } else if (auto group = require_group_of_device(); !group && is_vfio_driver(driver_)) {
      // vfio_group_find_or_alloc
      what.reason = group.error().reason();
      what.remedy = group.error().remedy();
    } else if (sysfs::number(kernel_, path + "/class").value_or(0) >> 8 == bridge_class) {
      what.reason = fmt::format("{} takes no bridge", driver_);  // vfio_pci_core_register_device
      what.remedy = "pass through what is behind it";
    } else {
      what.reason = fmt::format("{} refused the device", driver_);
      what.remedy = "see the kernel's log (dmesg) for the reason";
    }
    return call_failure("write " + enter_file_, std::move(what));
  }
  [[nodiscard]] Result<GroupId> require_group_of_device() const {
    auto device = find_host_device(kernel_, before_.bus, before_.device);
    if (!device) return failure_of(device);
    return require_group(kernel_, *device);
  }

  // Puts back what was changed, as far as it still is as make() left it: what somebody else has changed since is
  // theirs. False: the device had a driver, and has none now. A driver that does not have the device answers ENODEV,
  // and one that has it already EBUSY.
  [[nodiscard]] bool undo() noexcept {
    if (kernel_.read_file(override_file_, override_now_) < 0 || driver_in(override_now_) != driver_in(override_))
      return true;
    (void)kernel_.write_file(override_file_, override_before_);
    if (before_.driver == driver_) return true;
    if (!leave_again_file_.empty()) (void)kernel_.write_file(leave_again_file_, before_.device);
    if (return_file_.empty()) return true;
    const int result = kernel_.write_file(return_file_, before_.device);
    return result >= 0 || result == -EBUSY;
  }

  Kernel& kernel_;
  Binding before_;
  std::string driver_;  // empty: none, or the kernel's choice
  std::string override_file_;
  std::string override_;
  std::string override_before_;
  std::string leave_file_;
  std::string return_file_;
  std::string enter_file_;
  std::string leave_again_file_;
  std::string override_now_;
};

}  // namespace

Result<Binding> read_binding(Kernel& kernel, const HostDevice& device) {
  return read_binding(kernel, device.bus, device.name);
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
  auto moved = Move(kernel, *before, driver, driver).make();
  return moved ? std::move(before) : failure_of(moved);
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
  auto now = read_binding(kernel, binding.bus, binding.device);
  if (!now) return failure_of(now);
  return Move(kernel, std::move(*now), binding.driver, binding.driver_override).make();
}

Result<void> bind_to_default_driver(Kernel& kernel, const HostDevice& device) {
  auto named =
      require_names({.bus = device.bus, .device = device.name, .driver = {}, .driver_override = {}, .ids = {}});
  if (!named) return named;
  const auto lock = BindingLock::take(kernel, device.bus, device.name);
  if (!lock) return tl::unexpected<Error>(lock.error());
  auto now = read_binding(kernel, device);
  if (!now) return failure_of(now);
  Move move(kernel, std::move(*now), std::nullopt, std::nullopt);
  move.let_kernel_choose();
  return move.make();
}

}  // namespace postern
