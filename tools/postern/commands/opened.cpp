// SPDX-License-Identifier: Apache-2.0
// Formats what an open device reports.
#include "commands/opened.hpp"

#include <fmt/format.h>

#include "text/names.hpp"
#include "text/sizes.hpp"
#include "text/table.hpp"

namespace postern::tool {
namespace {

std::string areas_text(const Region& region) {
  if (!region.mappable) return "";
  if (region.mappable_areas.size() == 1 && region.mappable_areas.front().length == region.length) return "all";
  std::string text;
  for (const RegionArea& area : region.mappable_areas) {
    text += fmt::format("{}{:#x}-{:#x}", text.empty() ? "" : ", ", area.offset, area.offset + area.length - 1);
  }
  return text.empty() ? "nothing" : text;
}

std::string kind_text(const Region& region) {
  std::string text = region_name(region.index);
  if (region.type) text += fmt::format(" (type {:#x}, subtype {:#x})", region.type->type, region.type->subtype);
  return text;
}

std::string abilities_text(const Interrupt& interrupt) {
  std::string text;
  const auto add = [&](bool has, const char* word) {
    if (has) text += (text.empty() ? "" : ", ") + std::string(word);
  };
  add(interrupt.eventfd, "eventfd");
  add(interrupt.maskable, "maskable");
  add(interrupt.automasked, "masks itself");
  add(!interrupt.resizable, "fixed once enabled");
  return text;
}

}  // namespace

std::string opened_text(const PciDevice& device, const Terminal& terminal) {
  const auto heading = [&](const char* text) { return "\n" + paint(terminal, Style::heading, text) + "\n"; };

  Table regions({{"REGION"}, {"SIZE"}, {"ACCESS"}, {"MAPPABLE", Fit::folded}}, 2);
  for (const Region& region : device.device().regions()) {
    if (region.length == 0) continue;
    const std::string access = std::string(region.readable ? "r" : "-") + (region.writable ? "w" : "-");
    regions.add_row({kind_text(region), size_text(region.length), access, areas_text(region)});
  }
  Table interrupts({{"INTERRUPT"}, {"VECTORS"}, {"", Fit::folded}}, 2);
  for (const Interrupt& interrupt : device.device().interrupts()) {
    if (interrupt.count == 0) continue;
    interrupts.add_row({interrupt_name(interrupt.index), std::to_string(interrupt.count), abilities_text(interrupt)});
  }
  Table capabilities({{"AT"}, {"CAPABILITY", Fit::folded}}, 2);
  for (const PciCapability& capability : device.capabilities()) {
    capabilities.add_row({fmt::format("{:#05x}", capability.offset), capability_name(capability)});
  }

  std::string text = heading("regions") + regions.text(terminal) + heading("interrupts") + interrupts.text(terminal);
  if (!device.capabilities().empty()) text += heading("capabilities") + capabilities.text(terminal);
  text += heading("driver features");
  std::string features = device.device().can_reset() ? "RESET" : "";
  for (const std::string_view feature : device.device().features()) {
    features += (features.empty() ? "" : ", ") + std::string(feature);
  }
  return text + "  " + (features.empty() ? "none" : fold(terminal, features, 2)) + "\n";
}

Json opened_json(const PciDevice& device) {
  Json regions = Json::array();
  for (const Region& region : device.device().regions()) {
    if (region.length == 0) continue;
    Json areas = Json::array();
    for (const RegionArea& area : region.mappable_areas)
      areas.push_back({{"offset", area.offset}, {"length", area.length}});
    regions.push_back({{"index", region.index},
                       {"name", region_name(region.index)},
                       {"length", region.length},
                       {"readable", region.readable},
                       {"writable", region.writable},
                       {"mappable_areas", std::move(areas)}});
  }
  Json interrupts = Json::array();
  for (const Interrupt& interrupt : device.device().interrupts()) {
    if (interrupt.count == 0) continue;
    interrupts.push_back({{"index", interrupt.index},
                          {"name", interrupt_name(interrupt.index)},
                          {"count", interrupt.count},
                          {"eventfd", interrupt.eventfd},
                          {"maskable", interrupt.maskable},
                          {"automasked", interrupt.automasked},
                          {"resizable", interrupt.resizable}});
  }
  Json capabilities = Json::array();
  for (const PciCapability& capability : device.capabilities()) {
    capabilities.push_back({{"id", capability.id},
                            {"extended", capability.extended},
                            {"offset", capability.offset},
                            {"name", capability_name(capability)}});
  }
  return {{"regions", std::move(regions)},
          {"interrupts", std::move(interrupts)},
          {"capabilities", std::move(capabilities)},
          {"features", device.device().features()},
          {"can_reset", device.device().can_reset()}};
}

}  // namespace postern::tool
