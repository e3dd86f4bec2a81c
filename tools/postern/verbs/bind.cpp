// SPDX-License-Identifier: Apache-2.0
// postern bind: takes a device from its driver and gives it to a VFIO driver, remembering where it was.
#include <fmt/format.h>

#include <cerrno>
#include <memory>
#include <postern/binding.hpp>
#include <postern/pci_function.hpp>
#include <string>
#include <utility>

#include "host/conditions.hpp"
#include "host/held_signals.hpp"
#include "host/in_use.hpp"
#include "host/remembered.hpp"
#include "text/errors.hpp"
#include "text/patience.hpp"
#include "verb.hpp"

namespace postern::tool {
namespace {

struct BindOptions {
  PciAddress address;
  std::string driver = "vfio-pci";
  bool named = false;  // the driver, by --driver
  bool force = false;
};

// Whether what is remembered still is the device's origin. It must be the same device, and not one that has come to its
// address since. With a VFIO driver, or with none (a bind that was cut short), the device is where postern put it. With
// another driver, somebody has moved it since, and this is its origin now.
bool still_holds(const Binding& remembered, const Binding& now, const HostDevice& device) {
  if (!remembered.ids.empty() && remembered.ids != now.ids) return false;
  return !now.driver || device.is_vfio || remembered.driver == now.driver;
}

// A device that is bound is of no use yet if others of its group stand in the way: better said now than at attaching.
void note_obstacles(const Session& session, PciAddress address) {
  for (const Condition& condition : judge_device(session.kernel, address)) {
    if (condition.key != "group-viable" || condition.verdict != Verdict::not_met) continue;
    session.note(fmt::format("postern: note: the rest of its IOMMU group is {}\n{}", printable(condition.detail),
                             remedy_text(condition.remedy, session.err, 2)));
  }
}

void tell(const Session& session, const std::string& device, const std::optional<std::string>& before,
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
    session.print(fmt::format("{}: is bound to {} already\n", device, after));
  }
}

Result<Ending> run_bind(Session& session, const BindOptions& options) {
  auto function = find_pci_function(session.kernel, options.address);
  if (!function) return failure_of(function);
  const HostDevice& device = function->host;
  const std::optional<std::string> before = device.driver;
  // A vendor's driver that serves VFIO by itself has no other that could.
  const bool serves_vfio = device.is_vfio && before && !is_vfio_driver(*before) && !options.named;
  if (before == options.driver || serves_vfio) {
    tell(session, device.name, before, *before);
    note_obstacles(session, options.address);
    return Ending::well;
  }
  auto in_use = take_from_host(session, device, "bind", options.force);
  if (!in_use) return failure_of(in_use);

  const HeldSignals held;
  const RememberedBindings bindings(session.bindings_folder);
  auto lock = bindings.lock(device.name);
  if (!lock) return failure_of(lock);
  auto now = read_binding(session.kernel, device);
  if (!now) return failure_of(now);
  auto remembered = bindings.recall(device.name);
  if (!remembered) return failure_of(remembered);
  // Written down before anything is changed, because a crash after it would leave nobody who knows.
  const bool anew = !*remembered || !still_holds(**remembered, *now, device);
  if (anew) {
    if (auto done = bindings.remember(*now); !done) return failure_of(done);
  }
  const Patience patience(session, device);
  if (auto bound = bind_to_driver(session.kernel, device, options.driver); !bound) {
    // The device is back where it was; a file that says so would only be in the way.
    if (anew) {
      if (auto done = bindings.forget(device.name); !done)
        session.note(fmt::format("postern: {}\n", error_line(done.error())));
    }
    return failure_of(bound);
  }
  tell(session, device.name, before, options.driver, *in_use);
  note_obstacles(session, options.address);
  return Ending::well;
}

Run add_bind(CLI::App& verb) {
  auto options = std::make_shared<BindOptions>();
  add_device(verb, options->address)->required();
  const auto name_driver = [options = options.get()](const std::string& name) {
    if (!is_vfio_driver(name)) {
      throw CLI::ValidationError("--driver",
                                 fmt::format("{} is no VFIO driver; \"postern unbind\" gives a device back", name));
    }
    options->driver = name;
    options->named = true;
  };
  verb.add_option_function<std::string>("--driver", name_driver, "The VFIO driver that gets it (default: vfio-pci)")
      ->type_name("NAME");
  verb.add_flag("--force", options->force, "Take it even while this host uses it, and say what is lost");
  return [options](Session& session) { return run_bind(session, *options); };
}

}  // namespace

const Verb bind_verb = {
    .name = "bind",
    .summary = "Take a device from its driver and give it to vfio-pci",
    .footer =
        "Example:\n"
        "  postern bind 00:01.0      # 0000:00:01.0: nvme -> vfio-pci\n"
        "\n"
        "Needs root. What the device was bound to is remembered in /run/postern/bind, for \"postern unbind\". It lasts "
        "until\n"
        "the next boot. A device that is bound already is left alone, and that is no error. One that this host uses is "
        "refused\n"
        "(disks, network interfaces, the boot display, a physical function with virtual ones, nodes that processes "
        "hold), "
        "and so\n"
        "is one of which that cannot be told.",
    .add = add_bind,
};

}  // namespace postern::tool
