// SPDX-License-Identifier: Apache-2.0
// postern reset: resets a device alone, or all that hangs on its slot or bus.
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

#include "host/bound.hpp"
#include "host/group_remedy.hpp"
#include "host/holders.hpp"
#include "host/in_use.hpp"
#include "text/errors.hpp"
#include "text/names.hpp"
#include "text/table.hpp"
#include "verb.hpp"

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

// The same error with more to say.
Error extended(const Error& error, const std::string& reason, const std::string& remedy, std::vector<Error> causes) {
  const auto both = [](const std::string& first, const std::string& second) {
    return first.empty() || second.empty() ? first + second : first + "; " + second;
  };
  causes.insert(causes.begin(), error.causes().begin(), error.causes().end());
  return Error({.code = error.code(),
                .operation = error.operation(),
                .object = error.object(),
                .reason = both(error.reason(), reason),
                .remedy = remedy.empty() ? error.remedy() : remedy,
                .causes = std::move(causes)});
}

// Who has a device of this group open: of all its members, since one process has them all or none.
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
      extended(with_group_remedy(kernel, host, device.error()), group_holders_text(kernel, *host.iommu_group), "", {}));
}

// What else can be done for a device that has no reset of its own.
Error without_reset(const Error& error, const Device& device) {
  const auto set = ResetSet::of(device);
  if (!set && set.error().code() == ENODEV) return extended(error, "nor can its slot or bus be reset", "", {});
  if (!set) return extended(error, "", "", {set.error()});
  const std::size_t others = set->members().size() - 1;
  const std::string together = others == 0   ? "where it is alone"
                               : others == 1 ? "together with 1 other"
                                             : fmt::format("together with {} others", others);
  return extended(error, "",
                  fmt::format("reset its slot or bus, {}: \"postern reset {} --bus\"", together, device.name()), {});
}

Result<Ending> reset_function(const Session& session, Device device, const InUse& in_use) {
  const std::string name = device.name();
  const std::string backend(device.container()->backend());
  auto pci = PciDevice::open(std::move(device));
  if (!pci) return failure_of(pci);
  // One that does not answer shows no way to reset it. Where the kernel knew one before, that may bring it back.
  if (!pci->device().can_reset()) {
    if (auto alive = pci->require_answer(); !alive) return failure_of(alive);
  }
  auto method = pci->reset();
  if (!method && method.error().code() == EOPNOTSUPP) return failure(without_reset(method.error(), pci->device()));
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
  return Ending::well;
}

// The other members that are bound to VFIO and not ours yet, as far as they can be had.
struct Others {
  std::vector<Device> devices;
  std::vector<Error> refusals;
};

Others take_others(Kernel& kernel, const Device& device, const ResetSet& set) {
  Others others;
  for (const ResetMember& member : set.members()) {
    if (member.ours() || !member.is_vfio) continue;
    auto host = find_host_device(kernel, "pci", to_string(member.address));
    if (!host) continue;  // gone since, which the set says when it is asked for again
    auto taken = take(kernel, *host, {.backend = device.container()->backend(), .join = {device.container()}});
    if (taken) {
      others.devices.push_back(std::move(*taken));
    } else {
      others.refusals.push_back(std::move(taken).error());
    }
  }
  return others;
}

// A member, and what sysfs and /proc know of it.
struct Row {
  const ResetMember* member;
  PciFunction function;
  std::string holders;
};

Result<std::vector<Row>> rows_of(Kernel& kernel, const ResetSet& set) {
  auto functions = list_pci_functions(kernel);
  if (!functions) return failure_of(functions);
  std::vector<Row> rows;
  for (const ResetMember& member : set.members()) {
    Row row{.member = &member, .function = {}, .holders = {}};
    const auto found = std::find_if(functions->begin(), functions->end(),
                                    [&](const PciFunction& function) { return function.address == member.address; });
    if (found != functions->end()) row.function = *found;
    row.function.address = member.address;
    if (!member.ours()) row.holders = holders_text(kernel, row.function.host);
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string rows_text(const Session& session, const std::vector<Row>& rows) {
  Table table({{"ADDRESS"}, {"DEVICE", Fit::shortened}, {"GROUP"}, {"DRIVER"}, {"WHOSE", Fit::folded}});
  for (const Row& row : rows) {
    const std::string whose = row.member->ours()    ? "ours"
                              : row.holders.empty() ? row.member->obstacle
                                                    : fmt::format("{}; {}", row.member->obstacle, row.holders);
    table.add_row({to_string(row.member->address), title_of(row.function),
                   row.member->group ? to_string(*row.member->group) : "-", row.member->driver.value_or("-"), whose});
  }
  return table.text(session.out);
}

Json rows_json(const std::vector<Row>& rows) {
  Json members = Json::array();
  for (const Row& row : rows) {
    Json member = function_json(row.function);
    member["ours"] = row.member->ours();
    member["in_the_way"] = row.member->ours() ? Json(nullptr) : Json(row.member->obstacle);
    member["holders"] = row.holders.empty() ? Json(nullptr) : Json(row.holders);
    members.push_back(std::move(member));
  }
  return members;
}

Result<Ending> reset_bus(const Session& session, const Device& device, InUse in_use, bool force) {
  auto alone = ResetSet::of(device);
  if (!alone) return failure_of(alone);
  const Others others = take_others(session.kernel, device, *alone);
  std::vector<const Device*> lent;
  for (const Device& other : others.devices) lent.push_back(&other);
  auto set = ResetSet::of(device, lent);
  if (!set) return failure_of(set);
  auto rows = rows_of(session.kernel, *set);
  if (!rows) return failure_of(rows);
  if (!session.json()) session.print_now(rows_text(session, *rows));
  for (const Row& row : *rows) {
    if (!row.member->ours() || row.function.host.name.empty() || row.function.host.name == device.name()) continue;
    auto taken = take_from_host(session, row.function.host, "reset", force);
    if (!taken) return failure_of(taken);
    in_use.uses.insert(in_use.uses.end(), taken->uses.begin(), taken->uses.end());
    in_use.unknown.insert(in_use.unknown.end(), taken->unknown.begin(), taken->unknown.end());
  }

  auto done = set->reset();
  if (!done && !others.refusals.empty()) done = failure(extended(done.error(), "", "", others.refusals));
  if (session.json()) {
    Json json = {{"ok", done.has_value()},
                 {"device", device.name()},
                 {"backend", device.container()->backend()},
                 {"members", rows_json(*rows)},
                 {"error", done ? Json(nullptr) : error_json(done.error())}};
    add_losses(json, in_use);
    session.print(json_text(json));
    return done ? Ending::well : Ending::not_well;
  }
  if (!done) return failure_of(done);
  std::vector<std::string> names;
  for (const ResetMember& member : set->members()) names.push_back(to_string(member.address));
  session.print(fmt::format("{}: reset by hot reset\n", list_of(names)));
  return Ending::well;
}

Result<Ending> run_reset(Session& session, const ResetOptions& options) {
  auto function = find_pci_function(session.kernel, options.address);
  if (!function) return failure_of(function);
  const HostDevice& host = function->host;
  if (options.backend != "auto") {
    if (auto named = find_backend(options.backend); !named) return failure_of(named);
  }
  if (auto bound = require_bound(session.kernel, *function, "reset"); !bound) return failure_of(bound);
  // A reset takes from this host what is on the device, such as the virtual functions of a physical one.
  auto in_use = take_from_host(session, host, "reset", options.force);
  if (!in_use) return failure_of(in_use);
  auto device = take(session.kernel, host, {.backend = options.backend, .vf_token = options.vf_token});
  if (!device) return failure_of(device);
  if (options.scope == Scope::bus) return reset_bus(session, *device, std::move(*in_use), options.force);
  return reset_function(session, std::move(*device), *in_use);
}

Run add_reset(CLI::App& verb) {
  auto options = std::make_shared<ResetOptions>();
  add_device(verb, options->address)->required();
  add_vf_token(verb, options->vf_token);
  verb.add_flag_callback(
      "--bus", [options = options.get()] { options->scope = Scope::bus; },
      "Reset all on its slot or bus, which must all be bound to VFIO and used by nobody");
  verb.add_flag("--force", options->force, "Reset it even while this host uses it, and say what is lost");
  const auto name_backend = [options = options.get()](const std::string& name) {
    auto named = find_backend(name);
    if (!named && named.error().code() == EINVAL && name != "auto")
      throw CLI::ValidationError("--backend", fmt::format("{}; {}", named.error().reason(), named.error().remedy()));
    options->backend = name;
  };
  verb.add_option_function<std::string>("--backend", name_backend,
                                        "The backend to open it with, by name (default: the best)")
      ->type_name("NAME");
  return [options](Session& session) { return run_reset(session, *options); };
}

}  // namespace

const Verb reset_verb = {
    .name = "reset",
    .summary = "Reset a device alone, or with --bus all that is on its slot or bus",
    .footer =
        "Examples:\n"
        "  postern reset 00:01.0          # 0000:00:01.0: reset by flr\n"
        "  postern reset 02:00.0 --bus    # 0000:02:00.0 and 0000:02:00.1: reset by hot reset\n"
        "\n"
        "The device must be bound to a VFIO driver, and nobody may have it open. Which way a reset goes, the kernel "
        "chooses:\n"
        "the first in /sys/bus/pci/devices/DEV/reset_method, which root may write. With --bus it is shown first what "
        "else\n"
        "would be reset; if one of these devices is not bound to VFIO, or somebody has it open, nothing is reset.",
    .add = add_reset,
};

}  // namespace postern::tool
