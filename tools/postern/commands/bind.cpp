// SPDX-License-Identifier: Apache-2.0
// postern bind: binds a device to a VFIO driver and records its previous driver.
#include <fmt/format.h>

#include <cerrno>
#include <memory>
#include <postern/binding.hpp>
#include <postern/pci_function.hpp>
#include <string>
#include <utility>

#include "command.hpp"
#include "commands/wait_notice.hpp"
#include "host/blocked_signals.hpp"
#include "host/conditions.hpp"
#include "host/in_use.hpp"
#include "host/recorded_bindings.hpp"
#include "text/errors.hpp"

namespace postern::tool {
namespace {

struct BindOptions {
  PciAddress address;
  std::string driver = "vfio-pci";
  bool named = false;  // the driver, by --driver
  bool force = false;
};

// Whether the record still names the device's original driver. It must be of the same device, not of another one that
// has got the address since. If the device has a VFIO driver, or none (an interrupted bind), postern left it that way.
// If it has another driver, it was rebound since, and that driver is its original one now.
bool still_holds(const Binding& recorded, const Binding& now, const HostDevice& device) {
  if (!recorded.ids.empty() && recorded.ids != now.ids) return false;
  return !now.driver || device.is_vfio || recorded.driver == now.driver;
}

// A bound device cannot be attached while its group has blockers: report that now rather than when attaching.
void note_blockers(const Session& session, PciAddress address) {
  const auto function = find_pci_function(session.kernel, address);
  if (!function) return;
  for (const Condition& condition : judge_device(session.kernel, *function)) {
    if (condition.key != "group-viable" || condition.verdict != Verdict::not_met) continue;
    session.note(fmt::format("postern: note: its IOMMU group is not viable: {}\n{}", printable(condition.detail),
                             remedy_text(condition.remedy, session.err, 2)));
  }
}

void report(const Session& session, const std::string& device, const std::optional<std::string>& before,
            const std::string& after, const InUse& in_use = {}) {
  const bool changed = before != after;
  if (session.json()) {
    Json json = {
        {"device", device}, {"before", before ? Json(*before) : Json(nullptr)}, {"after", after}, {"changed", changed}};
    add_losses(json, in_use);
    session.print(json_text(json));
  } else if (changed) {
    session.print(fmt::format("{}: {} -> {}\n", device, before.value_or("no driver"), after));
  } else {
    session.print(fmt::format("{}: already bound to {}\n", device, after));
  }
}

Result<Ending> run_bind(Session& session, const BindOptions& options) {
  auto function = POSTERN_TRY(find_pci_function(session.kernel, options.address));
  const HostDevice& device = function.host;
  const std::optional<std::string> before = device.driver;
  // A vendor's driver that provides VFIO itself is kept: there is no other for this device.
  const bool provides_vfio = device.is_vfio && before && !is_vfio_driver(*before) && !options.named;
  if (before == options.driver || provides_vfio) {
    report(session, device.name, before, *before);
    note_blockers(session, options.address);
    return Ending::ok;
  }
  auto in_use = POSTERN_TRY(take_from_host(session, device, "bind", options.force));

  const BlockedSignals held;
  const RecordedBindings bindings(session.bindings_folder);
  auto lock = POSTERN_TRY(bindings.lock(device.name));
  auto now = POSTERN_TRY(read_binding(session.kernel, device));
  auto recorded = POSTERN_TRY(bindings.find(device.name));
  // Recorded before anything changes, so that the record survives a crash.
  const bool anew = !recorded || !still_holds(*recorded, now, device);
  if (anew) {
    POSTERN_TRY(bindings.record(now));
  }
  const WaitNotice notice(session, device);
  if (auto bound = bind_to_driver(session.kernel, device, options.driver); !bound) {
    // The device has its previous driver again, so the record is obsolete.
    if (anew) {
      if (auto done = bindings.remove(device.name); !done)
        session.note(fmt::format("postern: {}\n", error_line(done.error())));
    }
    return failure_of(bound);
  }
  report(session, device.name, before, options.driver, in_use);
  note_blockers(session, options.address);
  return Ending::ok;
}

Run add_bind(CLI::App& command) {
  auto options = std::make_shared<BindOptions>();
  add_device(command, options->address)->required();
  const auto name_driver = [options = options.get()](const std::string& name) {
    if (!is_vfio_driver(name)) {
      throw CLI::ValidationError(
          "--driver",
          fmt::format("{} is not a VFIO driver; \"postern unbind\" restores a device's previous driver", name));
    }
    options->driver = name;
    options->named = true;
  };
  command.add_option_function<std::string>("--driver", name_driver, "VFIO driver to bind it to (default: vfio-pci)")
      ->type_name("NAME");
  command.add_flag("--force", options->force, "Bind it even if this host uses it, and report what is lost");
  return [options](Session& session) { return run_bind(session, *options); };
}

}  // namespace

const Command bind_command = {
    .name = "bind",
    .summary = "Bind a device to vfio-pci and record its previous driver",
    .footer =
        "Example:\n"
        "  postern bind 00:01.0      # 0000:00:01.0: nvme -> vfio-pci\n"
        "\n"
        "Needs root. The previous driver is recorded in /run/postern/bind for \"postern unbind\", until the next boot. "
        "If the\n"
        "device is bound already, nothing is done and the exit code is 0. bind refuses a device that this host uses "
        "(disks,\n"
        "network interfaces, the boot display, a physical function with virtual functions, nodes that processes have "
        "open), or\n"
        "that it may be using.",
    .add = add_bind,
};

}  // namespace postern::tool
