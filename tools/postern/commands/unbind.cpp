// SPDX-License-Identifier: Apache-2.0
// postern unbind: restores a device's previous driver.
#include <fmt/format.h>

#include <memory>
#include <postern/binding.hpp>
#include <postern/pci_function.hpp>
#include <string>

#include "command.hpp"
#include "commands/wait_notice.hpp"
#include "host/blocked_signals.hpp"
#include "host/in_use.hpp"
#include "host/recorded_bindings.hpp"
#include "text/errors.hpp"

namespace postern::tool {
namespace {

struct UnbindOptions {
  PciAddress address;
  bool force = false;
};

Result<Ending> run_unbind(Session& session, const UnbindOptions& options) {
  const PciFunction function = POSTERN_TRY(find_pci_function(session.kernel, options.address));
  const HostDevice& device = function.host;
  const std::optional<std::string> before = device.driver;
  const BlockedSignals held;
  const RecordedBindings bindings(session.bindings_folder);
  auto lock = POSTERN_TRY(bindings.lock(device.name));
  const auto recorded = POSTERN_TRY(bindings.find(device.name));
  auto now_bound = POSTERN_TRY(read_binding(session.kernel, device));
  // The record may be of another device that had the address before.
  const bool known = recorded && (recorded->ids.empty() || recorded->ids == now_bound.ids);

  // A driver without VFIO was chosen by somebody else since. A vendor's driver that also provides VFIO is the device's
  // own unless another is recorded. Without a driver, a bind may have been interrupted.
  const bool owned = before ? device.is_vfio && (known || is_vfio_driver(*before)) : known;
  InUse in_use;
  if (owned) {
    // Unbinding the driver of a physical function removes its virtual functions.
    in_use = POSTERN_TRY(take_from_host(session, device, "unbind", options.force));
    const WaitNotice notice(session, device);
    POSTERN_TRY(known ? restore_binding(session.kernel, *recorded) : bind_to_default_driver(session.kernel, device));
  }
  if (recorded) POSTERN_TRY(bindings.remove(device.name));

  auto now = POSTERN_TRY(find_pci_function(session.kernel, options.address));
  const std::optional<std::string>& after = now.host.driver;
  if (session.json()) {
    const auto or_null = [](const std::optional<std::string>& driver) {
      return driver ? Json(*driver) : Json(nullptr);
    };
    Json json = {
        {"device", device.name}, {"before", or_null(before)}, {"after", or_null(after)}, {"changed", before != after}};
    add_losses(json, in_use);
    session.print(json_text(json));
  } else if (owned) {
    session.print(
        fmt::format("{}: {} -> {}\n", device.name, before.value_or("no driver"), after.value_or("no driver")));
  } else if (device.is_vfio) {
    session.print(fmt::format("{}: bound to {}, which provides VFIO itself: nothing to do\n", device.name, *before));
  } else {
    session.print(
        fmt::format("{}: not bound to a VFIO driver ({}): nothing to do\n", device.name, before.value_or("no driver")));
  }
  return Ending::ok;
}

Run add_unbind(CLI::App& command) {
  auto options = std::make_shared<UnbindOptions>();
  add_device(command, options->address)->required();
  command.add_flag("--force", options->force, "Unbind it even if this host uses it, and report what is lost");
  return [options](Session& session) { return run_unbind(session, *options); };
}

}  // namespace

const Command unbind_command = {
    .name = "unbind",
    .summary = "Restore a device's previous driver",
    .footer =
        "Example:\n"
        "  postern unbind 00:01.0    # 0000:00:01.0: vfio-pci -> nvme\n"
        "\n"
        "Needs root. If no driver is recorded, the kernel chooses one. Waits until every process has closed the "
        "device. If the\n"
        "device is not bound to a VFIO driver, nothing is done and the exit code is 0.",
    .add = add_unbind,
};

}  // namespace postern::tool
