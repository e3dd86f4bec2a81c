// SPDX-License-Identifier: Apache-2.0
// postern reset: resets one function, or its whole slot or bus.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <postern/attach.hpp>
#include <postern/pci_device.hpp>
#include <postern/pci_function.hpp>
#include <postern/reset_set.hpp>
#include <string>
#include <utility>
#include <vector>

#include "command.hpp"
#include "host/bound.hpp"
#include "host/group_remedy.hpp"
#include "host/holders.hpp"
#include "host/in_use.hpp"
#include "text/errors.hpp"
#include "text/names.hpp"
#include "text/remedies.hpp"
#include "text/table.hpp"

namespace postern::tool {
namespace {

enum class Scope : std::uint8_t { function, bus };

struct ResetOptions {
  PciAddress address;
  std::string backend = "auto";
  Scope scope = Scope::function;
  std::optional<VfToken> vf_token;
  bool force = false;
};

// Returns the error with a longer reason, another remedy and more causes.
Error extended(const Error& error, const std::string& reason, const Remedies& remedy, std::vector<Error> causes) {
  Error::Details details = error.details();
  if (!reason.empty()) details.reason += (details.reason.empty() ? "" : "; ") + reason;
  if (!remedy.empty()) details.remedy = remedy;
  details.causes.insert(details.causes.end(), causes.begin(), causes.end());
  return Error(std::move(details));
}

// Returns who has a member of this group open. Searches all members, since a group belongs to one process as a whole.
std::string group_holders_text(Kernel& kernel, GroupId id) {
  const auto group = find_iommu_group(kernel, id);
  if (!group) return "";
  for (const HostDevice& member : group->members) {
    if (const std::string text = holders_text(kernel, member); !text.empty()) return member.name + ": " + text;
  }
  return "";
}

Result<Device> take(Kernel& kernel, const HostDevice& host, const AttachOptions& options) {
  auto device = attach(kernel, host, options);
  const int code = device ? 0 : device.error().code();
  if ((code != EBUSY && code != EPERM) || !host.iommu_group) return device;
  return failure(
      extended(with_group_remedy(kernel, host, device.error()), group_holders_text(kernel, *host.iommu_group), {}, {}));
}

// Adds to the error of a function without a reset what a reset of its slot or bus would affect.
Error without_reset(const Error& error, const Device& device) {
  const auto set = ResetSet::of(device);
  if (!set && set.error().code() == ENODEV) return extended(error, "its slot or bus cannot be reset either", {}, {});
  if (!set) return extended(error, "", {}, {set.error()});
  const std::size_t others = set->members().size() - 1;
  const std::string scope = others == 0   ? "where it is the only function"
                            : others == 1 ? "which also resets 1 other function"
                                          : fmt::format("which also resets {} other functions", others);
  return extended(error, "", fmt::format("reset its slot or bus, {}: \"postern reset {} --bus\"", scope, device.name()),
                  {});
}

Result<Ending> reset_function(const Session& session, Device device, const InUse& in_use) {
  const std::string name = device.name();
  const std::string backend(device.container()->backend());
  auto pci = POSTERN_TRY(PciDevice::open(std::move(device)));
  // A device that does not respond shows no reset method. If the kernel knew one before, a reset may revive it.
  if (!pci.device().can_reset()) {
    POSTERN_TRY(pci.check_responds());
  }
  auto method = pci.reset();
  if (!method && method.error().code() == EOPNOTSUPP) return failure(without_reset(method.error(), pci.device()));
  if (!method) return failure_of(method);
  if (session.json()) {
    Json json = {{"ok", true},
                 {"device", name},
                 {"backend", backend},
                 {"method", method->empty() ? Json(nullptr) : Json(*method)}};
    add_losses(json, in_use);
    session.print(json_text(json));
  } else {
    session.print(fmt::format("{}: reset{}{}\n", name, method->empty() ? "" : " by ", *method));
  }
  return Ending::ok;
}

// The other members that are bound to VFIO, attached where possible.
struct Others {
  std::vector<Device> devices;
  std::vector<Error> refusals;
};

Others take_others(Kernel& kernel, const Device& device, const ResetSet& set) {
  Others others;
  for (const ResetMember& member : set.members()) {
    if (member.owned() || !member.is_vfio) continue;
    auto host = find_host_device(kernel, "pci", to_string(member.address));
    if (!host) continue;  // removed since; the next ResetSet reports that
    AttachOptions options{.backend = device.container()->backend()};
    options.join.push_back(device.container());
    auto taken = take(kernel, *host, options);
    if (taken) {
      others.devices.push_back(std::move(*taken));
    } else {
      others.refusals.push_back(std::move(taken).error());
    }
  }
  return others;
}

// A member, and what sysfs and /proc report about it.
struct Row {
  const ResetMember* member;
  PciFunction function;
  std::string holders;
};

Result<std::vector<Row>> rows_of(Kernel& kernel, const ResetSet& set) {
  auto functions = POSTERN_TRY(list_pci_functions(kernel));
  std::vector<Row> rows;
  for (const ResetMember& member : set.members()) {
    Row row{.member = &member, .function = {}, .holders = {}};
    const auto found = std::find_if(functions.begin(), functions.end(),
                                    [&](const PciFunction& function) { return function.address == member.address; });
    if (found != functions.end()) row.function = *found;
    row.function.address = member.address;
    if (!member.owned()) row.holders = holders_text(kernel, row.function.host);
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string rows_text(const Session& session, const std::vector<Row>& rows) {
  Table table({{"ADDRESS"}, {"DEVICE", Fit::shortened}, {"GROUP"}, {"DRIVER"}, {"OWNER", Fit::folded}});
  for (const Row& row : rows) {
    const std::string owner = row.member->owned()   ? "this process"
                              : row.holders.empty() ? row.member->blocker
                                                    : fmt::format("{}; {}", row.member->blocker, row.holders);
    table.add_row({to_string(row.member->address), title_of(row.function),
                   row.member->group ? to_string(*row.member->group) : "-", row.member->driver.value_or("-"), owner});
  }
  return table.text(session.out);
}

Json rows_json(const std::vector<Row>& rows) {
  Json members = Json::array();
  for (const Row& row : rows) {
    Json member = function_json(row.function);
    member["owned"] = row.member->owned();
    member["blocker"] = row.member->owned() ? Json(nullptr) : Json(row.member->blocker);
    member["holders"] = row.holders.empty() ? Json(nullptr) : Json(row.holders);
    members.push_back(std::move(member));
  }
  return members;
}

Result<Ending> reset_bus(const Session& session, const Device& device, InUse in_use, bool force) {
  auto alone = POSTERN_TRY(ResetSet::of(device));
  const Others others = take_others(session.kernel, device, alone);
  std::vector<const Device*> also_owned;
  for (const Device& other : others.devices) also_owned.push_back(&other);
  auto set = POSTERN_TRY(ResetSet::of(device, also_owned));
  auto rows = POSTERN_TRY(rows_of(session.kernel, set));
  if (!session.json()) session.print_now(rows_text(session, rows));
  for (const Row& row : rows) {
    if (!row.member->owned() || row.function.host.name.empty() || row.function.host.name == device.name()) continue;
    auto taken = POSTERN_TRY(take_from_host(session, row.function.host, "reset", force));
    in_use.uses.insert(in_use.uses.end(), taken.uses.begin(), taken.uses.end());
    in_use.unknown.insert(in_use.unknown.end(), taken.unknown.begin(), taken.unknown.end());
  }

  auto done = set.reset();
  if (!done && !others.refusals.empty()) done = failure(extended(done.error(), "", {}, others.refusals));
  if (session.json()) {
    Json json = {{"ok", done.has_value()},
                 {"device", device.name()},
                 {"backend", device.container()->backend()},
                 {"members", rows_json(rows)},
                 {"error", done ? Json(nullptr) : error_json(done.error())}};
    add_losses(json, in_use);
    session.print(json_text(json));
    return done ? Ending::ok : Ending::problem;
  }
  POSTERN_TRY(done);
  std::vector<std::string> names;
  for (const ResetMember& member : set.members()) names.push_back(to_string(member.address));
  session.print(fmt::format("{}: reset by hot reset\n", list_of(names)));
  return Ending::ok;
}

Result<Ending> run_reset(Session& session, const ResetOptions& options) {
  auto function = POSTERN_TRY(find_pci_function(session.kernel, options.address));
  const HostDevice& host = function.host;
  if (options.backend != "auto") {
    POSTERN_TRY(find_backend(options.backend));
  }
  POSTERN_TRY(require_bound(session.kernel, function, "reset"));
  // A reset removes what this host uses of the device, such as virtual functions.
  auto in_use = POSTERN_TRY(take_from_host(session, host, "reset", options.force));
  auto device = POSTERN_TRY(take(session.kernel, host, {.backend = options.backend, .vf_token = options.vf_token}));
  if (options.scope == Scope::bus) return reset_bus(session, device, std::move(in_use), options.force);
  return reset_function(session, std::move(device), in_use);
}

Run add_reset(CLI::App& command) {
  auto options = std::make_shared<ResetOptions>();
  add_device(command, options->address)->required();
  add_vf_token(command, options->vf_token);
  command.add_flag_callback(
      "--bus", [options = options.get()] { options->scope = Scope::bus; },
      "Reset its whole slot or bus; every device there must be bound to VFIO, and not open");
  command.add_flag("--force", options->force, "Reset it even if this host uses it, and report what is lost");
  add_backend(command, options->backend, "Backend to open it with (default: the first usable one)");
  return [options](Session& session) { return run_reset(session, *options); };
}

}  // namespace

const Command reset_command = {
    .name = "reset",
    .summary = "Reset a device, or with --bus its whole slot or bus",
    .footer =
        "Examples:\n"
        "  postern reset 00:01.0          # 0000:00:01.0: reset by flr\n"
        "  postern reset 02:00.0 --bus    # 0000:02:00.0 and 0000:02:00.1: reset by hot reset\n"
        "\n"
        "The device must be bound to a VFIO driver and must not be open. The kernel uses the first reset method in\n"
        "/sys/bus/pci/devices/DEV/reset_method, which root may write. --bus first lists the devices that would be "
        "reset; if\n"
        "one of them is not bound to VFIO, or is open, nothing is reset.",
    .add = add_reset,
};

}  // namespace postern::tool
