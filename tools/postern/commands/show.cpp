// SPDX-License-Identifier: Apache-2.0
// postern show: shows one device: its sysfs attributes, its group and, if it can be opened, what it reports then.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <postern/attach.hpp>
#include <postern/pci_device.hpp>
#include <postern/pci_function.hpp>
#include <string>
#include <vector>

#include "command.hpp"
#include "commands/limits.hpp"
#include "commands/opened.hpp"
#include "host/bound.hpp"
#include "host/conditions.hpp"
#include "host/group_remedy.hpp"
#include "host/power.hpp"
#include "text/errors.hpp"
#include "text/names.hpp"
#include "text/remedies.hpp"
#include "text/sizes.hpp"
#include "text/table.hpp"

namespace postern::tool {
namespace {

// The results of opening the device with every backend.
struct Opened {
  std::string text;
  Json json = Json::object();
};

// Attaches the device, collects what it reports, and detaches it.
Result<void> look(const Session& session, const PciFunction& function, const Backend& backend, Opened& found) {
  auto attached =
      attach(session.kernel, function.host, {.backend = backend.name, .container = nullptr, .container_options = {}});
  if (!attached) return failure(with_group_remedy(session.kernel, function.host, attached.error()));
  auto device = POSTERN_TRY(PciDevice::open(std::move(*attached)));
  const auto container = device.device().container();
  POSTERN_TRY(device.check_responds());

  if (!found.json.contains("regions")) {
    found.text = opened_text(device, session.out) + found.text;
    found.json.update(opened_json(device));
  }
  Table limits({{}, {"", Fit::folded}}, 2);
  limits.add_row({"usable addresses", ranges_text(*container)});
  limits.add_row({"page sizes", page_sizes_text(container->page_sizes())});
  limits.add_row({"mappings", mapping_limit_text(*container)});
  for (const auto& [name, value] : properties_of(*container)) limits.add_row({name, value});
  found.text += "\n" + paint(session.out, Style::heading, fmt::format("backend {}", backend.name)) + "\n" +
                limits.text(session.out);
  found.json["backends"][std::string(backend.name)] = limits_json(*container);

  POSTERN_TRY(device.device().detach());
  return container->close();
}

Opened open_everywhere(const Session& session, const PciFunction& function) {
  Opened found;
  found.json["backends"] = Json::object();
  for (const Backend* backend : backends()) {
    auto looked = look(session, function, *backend, found);
    if (looked) continue;
    found.json["backends"][std::string(backend->name)] = {{"error", error_json(looked.error())}};
    found.text += "\n" + paint(session.out, Style::heading, fmt::format("backend {}", backend->name)) + "\n  " +
                  fold(session.out, error_line(looked.error()), 2) + "\n" +
                  error_details(looked.error(), session.out, 2);
  }
  return found;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::string basics_text(const Session& session, const PciFunction& function) {
  const HostDevice& host = function.host;
  std::string cdev = "none";
  if (host.cdev && host.cdev->number) cdev = host.cdev->path;
  if (host.cdev && !host.cdev->number) cdev = "none (the kernel is built without CONFIG_VFIO_DEVICE_CDEV)";
  if (is_power(session.kernel)) cdev = "none (not on this architecture)";
  const bool bound = host.is_vfio;

  Table basics({{}, {"", Fit::folded}}, 2);
  basics.add_row({"ids", fmt::format("{}, subsystem {:04x}:{:04x}, revision {:02x}", ids_text(function),
                                     function.subsystem_vendor_id, function.subsystem_device_id, function.revision)});
  const PciNames names = find_pci_names(function);
  basics.add_row({"class", names.device_class.empty()
                               ? fmt::format("{:06x}", function.class_code)
                               : fmt::format("{:06x} {}", function.class_code, names.device_class)});
  basics.add_row({"driver", host.driver.value_or("none")});
  const bool is_translated = host.iommu_group && !host.is_noiommu;
  basics.add_row({"IOMMU group", group_text(host) + (is_translated ? "" : ": no IOMMU translates its DMA")});
  basics.add_row({"VFIO cdev", bound || is_power(session.kernel) ? cdev : "none (not bound to a VFIO driver)"});
  basics.add_row({"reset methods", function.reset_methods.empty() ? "none" : joined(function.reset_methods)});
  basics.add_row({"NUMA node", host.numa_node ? std::to_string(*host.numa_node) : "none"});
  return paint(session.out, Style::heading, fmt::format("{}  {}", host.name, title_of(function, names))) + "\n" +
         basics.text(session.out);
}

bool blocks(const IommuGroup& group, const HostDevice& member) {
  const auto blockers = group.blockers();
  return std::any_of(blockers.begin(), blockers.end(), [&](const auto* each) { return each->name == member.name; });
}

std::string group_text(const Session& session, const IommuGroup& group) {
  Table members({{"MEMBER"}, {"DRIVER"}, {"", Fit::folded}}, 2);
  for (const HostDevice& member : group.members) {
    members.add_row({member.name, member.driver.value_or("-"),
                     blocks(group, member) ? "blocks the group: its driver may do DMA" : "does not block"});
  }
  return "\n" + paint(session.out, Style::heading, "IOMMU group " + to_string(group.id)) + "\n" +
         members.text(session.out);
}

Json group_json(const IommuGroup& group) {
  Json members = Json::array();
  for (const HostDevice& member : group.members) {
    members.push_back({{"name", member.name},
                       {"driver", member.driver ? Json(*member.driver) : Json(nullptr)},
                       {"blocks", blocks(group, member)}});
  }
  return {{"id", static_cast<std::uint32_t>(group.id)},
          {"path", group.path},
          {"viable", group.viable()},
          {"members", std::move(members)}};
}

Json basics_json(const PciFunction& function) {
  const HostDevice& host = function.host;
  Json json = function_json(function);
  json["subsystem_vendor_id"] = fmt::format("{:04x}", function.subsystem_vendor_id);
  json["subsystem_device_id"] = fmt::format("{:04x}", function.subsystem_device_id);
  json["revision"] = fmt::format("{:02x}", function.revision);
  json["cdev"] = host.cdev && host.cdev->number ? Json(host.cdev->path) : Json(nullptr);
  json["reset_methods"] = function.reset_methods;
  json["numa_node"] = host.numa_node ? Json(*host.numa_node) : Json(nullptr);
  return json;
}

struct ShowOptions {
  PciAddress address;
  std::optional<VfToken> vf_token;
};

Result<Ending> run_show(Session& session, const ShowOptions& options) {
  auto function = POSTERN_TRY(find_pci_function(session.kernel, options.address));
  function.host.vf_token = options.vf_token;
  const HostDevice& host = function.host;
  std::optional<IommuGroup> group;
  if (host.iommu_group) {
    group = POSTERN_TRY(find_iommu_group(session.kernel, *host.iommu_group));
  }
  const bool bound = host.is_vfio;
  Opened opened;
  if (bound) opened = open_everywhere(session, function);

  if (session.json()) {
    Json document = basics_json(function);
    document["group"] = group ? group_json(*group) : Json(nullptr);
    document["opened"] = bound ? std::move(opened.json) : Json(nullptr);
    session.print(json_text(document));
    return Ending::ok;
  }
  session.print(basics_text(session, function));
  if (group) session.print(group_text(session, *group));
  if (bound) {
    session.print(opened.text);
  } else {
    const std::string what = "Its regions, interrupts and capabilities";
    const auto kind = judge_kind(function);
    const std::string text =
        kind ? fmt::format("{} cannot be shown: {}", what, kind->detail)
             : for_host(fmt::format("{} can be shown once it is bound to a VFIO driver: {}", what,
                                    words_of(require_bound(session.kernel, function, "show").error().remedies())));
    session.print("\n" + fold(session.out, text, 0) + "\n");
  }
  return Ending::ok;
}

Run add_show(CLI::App& command) {
  auto options = std::make_shared<ShowOptions>();
  add_device(command, options->address)->required();
  add_vf_token(command, options->vf_token);
  return [options](Session& session) { return run_show(session, *options); };
}

}  // namespace

const Command show_command = {
    .name = "show",
    .summary = "Show one device: group, regions, interrupts, capabilities, limits",
    .footer =
        "Example:\n"
        "  postern show 00:01.0\n"
        "\n"
        "If the device is bound to a VFIO driver and not open, show opens it, and the kernel resets it.",
    .add = add_show,
};

}  // namespace postern::tool
