// SPDX-License-Identifier: Apache-2.0
// Binds a device to another driver through its driver_override.
#include <fmt/format.h>

#include <array>
#include <postern/binding.hpp>
#include <utility>

#include "base/log.hpp"
#include "base/on_throw.hpp"
#include "base/remedy.hpp"
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
  if (result == -EACCES || result == -EPERM) what.remedy = RemedyCode::run_as_root;
  if (result == -EROFS) {
    what.reason = "sysfs is mounted read-only, as in containers";
    what.remedy = RemedyCode::make_sysfs_writable;
  }
  return call_failure("write " + path, std::move(what));
}

constexpr std::int64_t bridge_class = 0x0604;  // and subclass, of a PCI bridge

// Returns the driver in the text of a driver_override; empty if it is not set, which the kernel shows as "(null)".
std::string_view driver_in(std::string_view text) noexcept {
  text = text.substr(0, text.find_last_not_of(" \n") + 1);
  return text == "(null)" ? std::string_view() : text;
}

Result<std::optional<std::string>> read_override(Kernel& kernel, const std::string& path) {
  const std::string text = POSTERN_TRY(sysfs::text(kernel, path + "/driver_override")).value_or("");
  const std::string_view driver = driver_in(text);
  return driver.empty() ? std::nullopt : std::optional(std::string(driver));
}

// Called before any change: a device cannot be bound to a driver that is not loaded.
Result<void> require_driver(Kernel& kernel, const std::string& bus, const std::string& driver, std::string object) {
  FileStatus status;
  const int result = kernel.status(fmt::format("/sys/bus/{}/drivers/{}", bus, driver), status);
  if (result >= 0) return {};
  CallFailed what{.result = result, .object = std::move(object)};
  if (result == -ENOENT) {
    what.kind = ErrorKind::unavailable;
    what.reason = fmt::format("the {} bus has no driver {}", bus, driver);
    what.remedy = remedy<RemedyCode::load_driver>(driver);
  }
  return call_failure("stat", std::move(what));
}

// Returns the ids of vendor, device and subsystem in the format of pci.ids; empty on a bus without them.
Result<std::string> read_ids(Kernel& kernel, const std::string& path) {
  std::string ids;
  constexpr std::array<std::pair<const char*, const char*>, 4> files = {
      {{"vendor", ""}, {"device", ":"}, {"subsystem_vendor", " "}, {"subsystem_device", ":"}}};
  for (const auto& [file, mark] : files) {
    const auto id = POSTERN_TRY(sysfs::number(kernel, fmt::format("{}/{}", path, file)));
    if (id) ids += fmt::format("{}{:04x}", mark, *id);
  }
  return ids;
}

// The names in a binding become parts of paths, so they must be plain names.
Result<void> require_names(const Binding& binding) {
  const bool good = sysfs::is_entry(binding.bus) && sysfs::is_entry(binding.device) &&
                    (!binding.driver || sysfs::is_entry(*binding.driver)) &&
                    (!binding.driver_override || sysfs::is_entry(*binding.driver_override));
  if (good) return {};
  return refusal({.result = -EINVAL,
                  .object = fmt::format("driver of {}", binding.device),
                  .reason = fmt::format("bus \"{}\", device \"{}\", driver \"{}\", override \"{}\": one of "
                                        "these is not a name",
                                        binding.bus, binding.device, binding.driver.value_or("none"),
                                        binding.driver_override.value_or("none"))});
}

Result<Binding> read_binding(Kernel& kernel, const std::string& bus, const std::string& device) {
  Binding binding{.bus = bus, .device = device, .driver = {}, .driver_override = {}, .ids = {}};
  POSTERN_TRY(require_names(binding));
  const std::string path = device_path(bus, device);
  binding.driver = POSTERN_TRY(sysfs::link_name(kernel, path + "/driver"));
  binding.driver_override = POSTERN_TRY(read_override(kernel, path));
  binding.ids = POSTERN_TRY(read_ids(kernel, path));
  return binding;
}

// The writes to sysfs that change a device's driver. All their texts are created before the first write: afterwards
// only an error's text allocates memory, and undo() allocates none.
class Move {
 public:
  // From the state in `before` to this driver (none: no driver), with this override (none: the device's ids decide).
  Move(Kernel& kernel, Binding before, const std::optional<std::string>& driver,
       const std::optional<std::string>& driver_override)
      : kernel_(kernel),
        before_(std::move(before)),
        driver_(driver.value_or("")),
        override_file_(device_path(before_.bus, before_.device) + "/driver_override"),
        // An empty line clears the override (driver_set_override, Linux 5.19).
        override_(driver_override.value_or("\n")),
        override_before_(before_.driver_override.value_or("\n")),
        leave_file_(before_.driver ? driver_file(*before_.driver, "unbind") : ""),
        return_file_(before_.driver ? driver_file(*before_.driver, "bind") : ""),
        enter_file_(driver ? driver_file(*driver, "bind") : ""),
        leave_again_file_(driver ? driver_file(*driver, "unbind") : "") {
    override_now_.reserve(4096);  // the longest content of a file of sysfs
  }
  // Lets the kernel choose the driver. drivers_probe does not return the driver's errno.
  void let_kernel_choose() { enter_file_ = fmt::format("/sys/bus/{}/drivers_probe", before_.bus); }

  // Undoes its changes if a step fails, or if memory runs out.
  [[nodiscard]] Result<void> make() {
    const OnThrow undo_all([this]() noexcept { (void)undo(); });
    auto done = write_sysfs(kernel_, override_file_, override_, before_.device);
    if (done && before_.driver != driver_) done = leave();
    if (done && before_.driver != driver_ && !enter_file_.empty()) done = enter();
    if (done || undo()) return done;
    Error::Details details = done.error().details();
    details.reason += details.reason.empty() ? "" : "; ";
    details.reason += "the device is left without a driver";
    return failure(std::move(details));
  }

 private:
  [[nodiscard]] std::string driver_file(const std::string& driver, std::string_view file) const {
    return fmt::format("/sys/bus/{}/drivers/{}/{}", before_.bus, driver, file);
  }

  // Returns when the driver has released the device. If the device has another driver by now, the kernel returns
  // ENODEV.
  [[nodiscard]] Result<void> leave() {
    if (leave_file_.empty()) return {};
    auto done = write_sysfs(kernel_, leave_file_, before_.device, before_.device);
    if (done || done.error().code() != ENODEV) return done;
    return call_failure("write " + leave_file_, {.result = -ENODEV,
                                                 .kind = ErrorKind::stale,
                                                 .object = fmt::format("driver of {}", before_.device),
                                                 .reason = fmt::format("it is no longer bound to {}", *before_.driver),
                                                 .remedy = RemedyCode::stop_other_binder});
  }

  // The driver's own file returns the errno of its probe function (before Linux 5.11, always ENODEV).
  [[nodiscard]] Result<void> enter() {
    CallFailed what{.object = fmt::format("bind {} to {}", before_.device, driver_)};
    what.result = kernel_.write_file(enter_file_, before_.device);
    if (what.result >= 0) return {};
    const std::string path = device_path(before_.bus, before_.device);
    auto now = POSTERN_TRY(sysfs::link_name(kernel_, path + "/driver"));
    if (now) {
      what.kind = ErrorKind::stale;
      what.reason = fmt::format("{} did not bind it: it is bound to {}", driver_, *now);
      what.remedy = RemedyCode::stop_other_binder;
    } else if (auto group = require_group_of_device(); !group && is_vfio_driver(driver_)) {
      // vfio_group_find_or_alloc
      what.kind = group.error().kind();
      what.reason = group.error().reason();
      what.remedy = group.error().remedies();
    } else if (sysfs::number(kernel_, path + "/class").value_or(std::nullopt).value_or(0) >> 8 == bridge_class) {
      what.kind = ErrorKind::unsupported;
      what.reason = fmt::format("{} does not support bridges", driver_);  // vfio_pci_core_register_device
      what.remedy = RemedyCode::use_devices_behind_bridge;
    } else {
      what.reason = fmt::format("{} refused the device", driver_);
      what.remedy = RemedyCode::see_kernel_log;
    }
    return call_failure("write " + enter_file_, std::move(what));
  }
  [[nodiscard]] Result<GroupId> require_group_of_device() const {
    auto device = POSTERN_TRY(find_host_device(kernel_, before_.bus, before_.device));
    return require_group(kernel_, device);
  }

  // Reverts the changes of make(), except those that somebody else has changed since. False: the device had a driver,
  // and has none now. A driver that does not have the device returns ENODEV, and one that already has it EBUSY.
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
  POSTERN_TRY(
      require_names({.bus = device.bus, .device = device.name, .driver = driver, .driver_override = {}, .ids = {}}));
  const auto lock = POSTERN_TRY(BindingLock::take(kernel, device.bus, device.name));
  auto before = read_binding(kernel, device);
  if (!before || before->driver == driver) return before;

  POSTERN_TRY(require_driver(kernel, device.bus, driver, fmt::format("bind {} to {}", device.name, driver)));
  POSTERN_TRY(Move(kernel, *before, driver, driver).make());
  return before;
}

Result<NewBinding> bind_and_read(Kernel& kernel, const HostDevice& device, const std::string& driver) {
  auto previous = POSTERN_TRY(bind_to_driver(kernel, device, driver));
  const auto undo = [&] { log_failure_of([&] { return restore_binding(kernel, previous); }); };
  const OnThrow on_throw(undo);
  auto now = find_host_device(kernel, device.bus, device.name);
  if (!now) {
    undo();
    return failure_of(now);
  }
  now->vf_token = device.vf_token;
  return NewBinding{.device = std::move(*now), .previous = std::move(previous)};
}

Result<void> restore_binding(Kernel& kernel, const Binding& binding) {
  POSTERN_TRY(require_names(binding));
  const auto lock = POSTERN_TRY(BindingLock::take(kernel, binding.bus, binding.device));
  const std::string path = device_path(binding.bus, binding.device);
  const std::string ids = POSTERN_TRY(read_ids(kernel, path));
  if (!binding.ids.empty() && !ids.empty() && ids != binding.ids) {
    return refusal({.result = -ENODEV,
                    .kind = ErrorKind::stale,
                    .object = fmt::format("driver of {}", binding.device),
                    .reason = fmt::format("another device is there now: {}, not {}", ids, binding.ids),
                    .remedy = RemedyCode::discard_binding});
  }
  if (binding.driver) {
    const std::string object = fmt::format("return {} to {}", binding.device, *binding.driver);
    POSTERN_TRY(require_driver(kernel, binding.bus, *binding.driver, object));
  }
  auto now = POSTERN_TRY(read_binding(kernel, binding.bus, binding.device));
  return Move(kernel, std::move(now), binding.driver, binding.driver_override).make();
}

Result<void> bind_to_default_driver(Kernel& kernel, const HostDevice& device) {
  POSTERN_TRY(
      require_names({.bus = device.bus, .device = device.name, .driver = {}, .driver_override = {}, .ids = {}}));
  const auto lock = POSTERN_TRY(BindingLock::take(kernel, device.bus, device.name));
  auto now = POSTERN_TRY(read_binding(kernel, device));
  Move move(kernel, std::move(now), std::nullopt, std::nullopt);
  move.let_kernel_choose();
  return move.make();
}

}  // namespace postern
