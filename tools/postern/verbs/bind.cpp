// SPDX-License-Identifier: Apache-2.0
// postern bind: takes a device from its driver and gives it to a VFIO driver, remembering where it was.
#include <fmt/format.h>

#include <cerrno>
#include <memory>
#include <postern/binding.hpp>
#include <postern/pci_function.hpp>
#include <string>
#include <utility>

#include "host/block_use.hpp"
#include "host/conditions.hpp"
#include "host/remembered.hpp"
#include "text/errors.hpp"
#include "text/patience.hpp"
#include "verb.hpp"

namespace postern::tool {
namespace {

struct BindOptions {
  PciAddress address;
  std::string driver = "vfio-pci";
  bool force = false;
};

// What bind_to_driver() will find and give back. Written down before it is called, because a crash after it would leave
// nobody who knows.
Binding binding_of(Kernel& kernel, const HostDevice& device) {
  Binding binding{.bus = device.bus, .device = device.name, .driver = device.driver, .driver_override = {}};
  std::string override_text;
  if (kernel.read_file(device.sysfs_path + "/driver_override", override_text) < 0) return binding;
  override_text.erase(override_text.find_last_not_of('\n') + 1);
  // "(null)" is how the kernel spells that there is none.
  if (!override_text.empty() && override_text != "(null)") binding.driver_override = override_text;
  return binding;
}

// Whether what is remembered still is the device's origin. With a VFIO driver, or with none (a bind that was cut
// short), the device is where postern put it. With another driver, somebody has moved it since, and this is its origin
// now.
bool still_holds(const Binding& remembered, const HostDevice& device) {
  return !device.driver || is_vfio_driver(*device.driver) || remembered.driver == device.driver;
}

Error in_use(const HostDevice& device, const std::string& use) {
  return Error(
      {.code = EBUSY,
       .operation = "bind",
       .object = device.name,
       .reason = fmt::format("this host uses it: {}", use),
       .remedy = "unmount or stop that first; \"--force\" takes the device all the same, as if it were unplugged",
       .causes = {}});
}

// A device that is bound is of no use yet if others of its group stand in the way: better said now than at attaching.
void note_obstacles(const Session& session, PciAddress address) {
  for (const Condition& condition : judge_device(session.kernel, address)) {
    if (condition.key != "group-viable" || condition.verdict != Verdict::not_met) continue;
    session.note(fmt::format("postern: note: the rest of its IOMMU group is {}\n{}", condition.detail,
                             remedy_text(condition.remedy, session.err, 2)));
  }
}

void tell(const Session& session, const std::string& device, const std::optional<std::string>& before,
          const std::string& after) {
  const bool changed = before != after;
  if (session.json()) {
    session.print(json_text({{"device", device},
                             {"before", before ? Json(*before) : Json(nullptr)},
                             {"after", after},
                             {"changed", changed}}));
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
  if (before == options.driver) {
    tell(session, device.name, before, options.driver);
    note_obstacles(session, options.address);
    return Ending::well;
  }
  if (const std::string use = block_use(session.kernel, options.address); !use.empty() && !options.force) {
    return failure(in_use(device, use));
  }

  const RememberedBindings bindings(session.bindings_folder);
  auto remembered = bindings.recall(device.name);
  if (!remembered) return failure_of(remembered);
  const bool anew = !*remembered || !still_holds(**remembered, device);
  if (anew) {
    if (auto done = bindings.remember(binding_of(session.kernel, device)); !done) return failure_of(done);
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
  tell(session, device.name, before, options.driver);
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
  };
  verb.add_option_function<std::string>("--driver", name_driver, "The VFIO driver that gets it (default: vfio-pci)")
      ->type_name("NAME");
  verb.add_flag("--force", options->force, "Take it even while this host has file systems on it");
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
        "the next boot. A device that is bound already is left alone, and that is no error.",
    .add = add_bind,
};

}  // namespace postern::tool
