// SPDX-License-Identifier: Apache-2.0
// postern devices: lists the PCI functions of this host.
#include <postern/pci_function.hpp>
#include <string>

#include "command.hpp"
#include "text/names.hpp"
#include "text/table.hpp"

namespace postern::tool {
namespace {

Result<Ending> run_devices(Session& session) {
  auto functions = POSTERN_TRY(list_pci_functions(session.kernel));

  if (session.json()) {
    Json devices = Json::array();
    for (const PciFunction& function : functions) devices.push_back(function_json(function));
    session.print(json_text({{"devices", std::move(devices)}}));
    return Ending::ok;
  }

  Table table({{"ADDRESS"}, {"ID"}, {"GROUP"}, {"DRIVER"}, {"CLASS", Fit::shortened}, {"NAME", Fit::shortened}});
  for (const PciFunction& function : functions) {
    const PciNames names = find_pci_names(function);
    const bool named = !names.device.empty() || !names.vendor.empty();
    table.add_row({to_string(function.address), ids_text(function),
                   function.host.iommu_group ? group_text(function.host) : "-", function.host.driver.value_or("-"),
                   class_text(function, names), named ? title_of(function, names) : ""});
  }
  session.print(table.text(session.out));
  return Ending::ok;
}

Run add_devices(CLI::App&) { return run_devices; }

}  // namespace

const Command devices_command = {
    .name = "devices",
    .summary = "List the PCI devices of this host: ids, IOMMU group, driver, name",
    .footer = "Example:\n  postern devices",
    .add = add_devices,
};

}  // namespace postern::tool
