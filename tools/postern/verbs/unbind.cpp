// SPDX-License-Identifier: Apache-2.0
// postern unbind: gives a device back to the driver that it was taken from.
#include <fmt/format.h>

#include <memory>
#include <postern/binding.hpp>
#include <postern/pci_function.hpp>
#include <string>

#include "host/held_signals.hpp"
#include "host/in_use.hpp"
#include "host/remembered.hpp"
#include "text/errors.hpp"
#include "text/patience.hpp"
#include "verb.hpp"

namespace postern::tool {
namespace {

struct UnbindOptions {
  PciAddress address;
  bool force = false;
};

Result<Ending> run_unbind(Session& session, const UnbindOptions& options) {
  auto function = find_pci_function(session.kernel, options.address);
  if (!function) return failure_of(function);
  const HostDevice& device = function->host;
  const std::optional<std::string> before = device.driver;
  const HeldSignals held;
  const RememberedBindings bindings(session.bindings_folder);
  auto lock = bindings.lock(device.name);
  if (!lock) return failure_of(lock);
  auto remembered = bindings.recall(device.name);
  if (!remembered) return failure_of(remembered);
  auto now_bound = read_binding(session.kernel, device);
  if (!now_bound) return failure_of(now_bound);
  // Another device may have come to the address since.
  const bool known = *remembered && ((*remembered)->ids.empty() || (*remembered)->ids == now_bound->ids);

  // A driver that does not serve VFIO was chosen by somebody else since; one that does so beside its own work (a
  // vendor's) is at its place unless something else is remembered. Without any, a bind may have been cut short.
  const bool ours = before ? device.is_vfio && (known || is_vfio_driver(*before)) : known;
  InUse in_use;
  if (ours) {
    // The driver of a physical function takes its virtual functions with it.
    auto taken = take_from_host(session, device, "unbind", options.force);
    if (!taken) return failure_of(taken);
    in_use = std::move(*taken);
    const Patience patience(session, device);
    auto restored =
        known ? restore_binding(session.kernel, **remembered) : bind_to_default_driver(session.kernel, device);
    if (!restored) return failure_of(restored);
  }
  if (*remembered) {
    if (auto done = bindings.forget(device.name); !done) return failure_of(done);
  }

  auto now = find_pci_function(session.kernel, options.address);
  if (!now) return failure_of(now);
  const std::optional<std::string>& after = now->host.driver;
  if (session.json()) {
    const auto or_null = [](const std::optional<std::string>& driver) {
      return driver ? Json(*driver) : Json(nullptr);
    };
    Json json = {
        {"device", device.name}, {"before", or_null(before)}, {"after", or_null(after)}, {"changed", before != after}};
    add_losses(json, in_use);
    session.print(json_text(json));
  } else if (ours) {
    session.print(
        fmt::format("{}: {} -> {}\n", device.name, before.value_or("no driver"), after.value_or("no driver")));
  } else if (device.is_vfio) {
    session.print(fmt::format("{}: stays with {}, which serves VFIO itself: nothing to do\n", device.name, *before));
  } else {
    session.print(fmt::format("{}: is not bound to a VFIO driver ({}): nothing to do\n", device.name,
                              before.value_or("it has no driver")));
  }
  return Ending::well;
}

Run add_unbind(CLI::App& verb) {
  auto options = std::make_shared<UnbindOptions>();
  add_device(verb, options->address)->required();
  verb.add_flag("--force", options->force, "Give it back even while this host uses it, and say what is lost");
  return [options](Session& session) { return run_unbind(session, *options); };
}

}  // namespace

const Verb unbind_verb = {
    .name = "unbind",
    .summary = "Give a device back to the driver it was taken from",
    .footer =
        "Example:\n"
        "  postern unbind 00:01.0    # 0000:00:01.0: vfio-pci -> nvme\n"
        "\n"
        "Needs root. Where nothing is remembered of the device, the kernel chooses its driver. Waits until nobody has "
        "the\n"
        "device open. A device that is not bound to a VFIO driver is left alone, and that is no error.",
    .add = add_unbind,
};

}  // namespace postern::tool
