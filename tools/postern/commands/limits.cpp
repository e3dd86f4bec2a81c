// SPDX-License-Identifier: Apache-2.0
// Formats the limits and capabilities of a container.
#include "commands/limits.hpp"

#include <fmt/format.h>

#include <postern/dirty_tracker.hpp>
#include <postern/dma_windows.hpp>
#include <postern/eeh.hpp>

#include "text/names.hpp"
#include "text/sizes.hpp"

namespace postern::tool {
namespace {

Json sizes_json(std::uint64_t bitmap) {
  Json sizes = Json::array();
  for (std::uint64_t rest = bitmap; rest != 0; rest &= rest - 1) sizes.push_back(rest & (~rest + 1));
  return sizes;
}

Json windows_json(const DmaWindows& windows) {
  Json list = Json::array();
  for (const DmaWindow& window : windows.list()) {
    list.push_back({{"first", to_string(window.range.first)},
                    {"last", to_string(window.range.last)},
                    {"page_size", window.page_size},
                    {"levels", window.levels},
                    {"created", window.created}});
  }
  const DmaWindowLimits limits = windows.limits();
  return {{"list", std::move(list)},
          {"page_sizes", sizes_json(limits.page_sizes)},
          {"windows", limits.windows},
          {"levels", limits.levels}};
}

Json dirty_json(const DirtyTracker* tracker) {
  if (tracker == nullptr) return nullptr;
  Json devices = Json::array();
  for (const TrackedDevice& device : tracker->devices()) {
    devices.push_back({{"device", device.device}, {"source", to_string(device.source)}, {"note", device.note}});
  }
  return devices;
}

std::string dirty_text(const DirtyTracker* tracker) {
  if (tracker == nullptr) return "not supported by this kernel interface";
  std::string text;
  for (const TrackedDevice& device : tracker->devices()) {
    text += fmt::format("{}{}{}", text.empty() ? "" : "; ", dirty_source_text(device.source),
                        device.note.empty() ? "" : ": " + device.note);
  }
  return text;
}

std::string state_of(Eeh& eeh) {
  const auto state = eeh.state();
  return state ? std::string(to_string(*state)) : error_line(state.error());
}

}  // namespace

std::string range_text(IovaRange range) {
  return fmt::format("{} ({})", to_string(range), range.length() == 0 ? "16 EiB" : size_text(range.length()));
}

std::string ranges_text(const Container& container) {
  std::string text;
  for (const IovaRange& range : container.usable_ranges()) {
    if (!text.empty()) text += ", ";
    text += range_text(range);
  }
  return text.empty() ? "none" : text;
}

std::string mapping_limit_text(const Container& container) {
  const auto limit = container.mapping_limit();
  return limit ? "at most " + count_text(*limit) : "as many as memory allows";
}

Container::Properties properties_of(Container& container) {
  Container::Properties properties = container.properties();
  properties.emplace_back("dirty pages", dirty_text(container.get<DirtyTracker>()));
  if (Eeh* const eeh = container.get<Eeh>()) properties.emplace_back("EEH state", state_of(*eeh));
  return properties;
}

Json limits_json(Container& container) {
  Json ranges = Json::array();
  for (const IovaRange& range : container.usable_ranges()) {
    ranges.push_back({{"first", to_string(range.first)}, {"last", to_string(range.last)}});
  }
  Json properties = Json::object();
  for (const auto& [name, value] : container.properties()) properties[name] = value;
  const auto limit = container.mapping_limit();
  const DmaWindows* const windows = container.get<DmaWindows>();
  Eeh* const eeh = container.get<Eeh>();
  return {{"usable_ranges", std::move(ranges)},
          {"page_sizes", sizes_json(container.page_sizes())},
          {"mapping_limit", limit ? Json(*limit) : Json(nullptr)},
          {"facts", std::move(properties)},
          {"dirty_pages", dirty_json(container.get<DirtyTracker>())},
          {"dma_windows", windows != nullptr ? windows_json(*windows) : Json(nullptr)},
          {"eeh", eeh != nullptr ? Json(state_of(*eeh)) : Json(nullptr)}};
}

}  // namespace postern::tool
