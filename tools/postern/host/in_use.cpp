// SPDX-License-Identifier: Apache-2.0
// InUse: how this host uses a device, apart from disks and network interfaces.
#include "host/in_use.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <sstream>
#include <string_view>

#include "host/holders.hpp"
#include "host/reading.hpp"

namespace postern::tool {
namespace {

std::uint64_t count_of(const std::string& digits) {
  std::uint64_t count = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), count);
  return count;
}

// Unbinding the driver of a physical function removes its virtual functions.
void find_virtual_functions(Kernel& kernel, const HostDevice& device, InUse& found) {
  Reading reading(kernel, "its virtual functions", found.unknown);
  const auto count = count_of(reading.line(device.sysfs_path + "/sriov_numvfs"));
  if (count == 0) return;
  const std::string functions = fmt::format("{} virtual function{}", count, count == 1 ? "" : "s");
  found.uses.push_back({.what = fmt::format("it has {} enabled (sriov_numvfs)", functions),
                        .loss = fmt::format("its {} and their users", functions)});
}

// Returns the firmware framebuffer in the device's memory, from /proc/iomem: an entry nested in the device's. Without
// root all addresses there read 0, but the names and the nesting are right.
std::string framebuffer_of(Reading& reading, const HostDevice& device) {
  constexpr std::array<std::string_view, 5> names = {"BOOTFB", "efifb", "simplefb", "simple-framebuffer", "vesafb"};
  std::istringstream lines(reading.text("/proc/iomem"));
  std::size_t depth = std::string::npos;  // of the device's line, while its children are read
  for (std::string line; std::getline(lines, line);) {
    const std::size_t indent = line.find_first_not_of(' ');
    const std::size_t colon = line.find(" : ");
    if (colon == std::string::npos) continue;
    std::string name = line.substr(colon + 3);
    if (depth != std::string::npos && indent > depth) {
      if (std::find(names.begin(), names.end(), name) != names.end()) return name;
      continue;
    }
    depth = name == device.name ? indent : std::string::npos;
  }
  return {};
}

void find_display(Kernel& kernel, const HostDevice& device, InUse& found) {
  Reading reading(kernel, "the boot display", found.unknown);
  const std::string framebuffer = framebuffer_of(reading, device);
  const bool boot = reading.line(device.sysfs_path + "/boot_vga") == "1";
  if (!framebuffer.empty()) {
    found.uses.push_back({.what = fmt::format("the boot framebuffer ({}) holds one of its BARs", framebuffer),
                          .loss = "this host's console display"});
  } else if (boot) {
    found.uses.push_back({.what = "it is the boot display (boot_vga)", .loss = "this host's console display"});
  }
}

// NVIDIA's driver creates its nodes without sysfs.
void add_nvidia_nodes(Kernel& kernel, Reading& reading, const HostDevice& device, std::vector<std::string>& paths) {
  if (device.driver != "nvidia") return;
  const auto text = read_text(kernel, fmt::format("/proc/driver/nvidia/gpus/{}/information", device.name));
  std::istringstream lines(text.value_or(std::nullopt).value_or(""));
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("Device Minor:")) continue;
    const auto digits = line.find_first_of("0123456789");
    if (digits != std::string::npos) paths.push_back("/dev/nvidia" + line.substr(digits));
    return;
  }
  // Which node is the device's is unknown: it may be any of them.
  for (const std::string& name : reading.entries("/dev")) {
    if (name.starts_with("nvidia") && name.size() > 6 && name[6] >= '0' && name[6] <= '9')
      paths.push_back("/dev/" + name);
  }
}

// Returns the device's nodes in /dev, except VFIO's: /dev/dri/card0, /dev/nvme0, /dev/nvme0n1, /dev/infiniband/uverbs0.
std::vector<std::string> nodes_of(Kernel& kernel, const HostDevice& device, InUse& found) {
  std::vector<std::string> paths;
  Reading reading(kernel, "its nodes", found.unknown);
  for (const std::string folder : {"/sys/dev/char", "/sys/dev/block"}) {
    for (const std::string& number : reading.entries(folder)) {
      const std::string link = fmt::format("{}/{}", folder, number);
      if (!reading.leads_to(link, device)) continue;
      std::istringstream lines(reading.text(link + "/uevent"));
      for (std::string line; std::getline(lines, line);) {
        if (line.starts_with("DEVNAME=") && !line.starts_with("DEVNAME=vfio/"))
          paths.push_back("/dev/" + line.substr(8));
      }
    }
  }
  add_nvidia_nodes(kernel, reading, device, paths);
  return paths;
}

void find_processes(Kernel& kernel, const HostDevice& device, InUse& found) {
  const std::vector<std::string> paths = nodes_of(kernel, device, found);
  if (paths.empty()) return;
  const Holders holders = find_holders(kernel, paths);
  if (!holders.processes.empty()) {
    const std::string who = list_of(holders.processes);
    found.uses.push_back({.what = fmt::format("{} {} {} open", who, holders.processes.size() == 1 ? "has" : "have",
                                              list_of(holders.paths)),
                          .loss = fmt::format("the work of {}", who)});
  }
  if (!holders.hidden.empty()) {
    found.unknown.push_back(fmt::format("which processes have {} open: {}", list_of(paths), holders.hidden));
  }
}

Json text_or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

template <typename Range, typename Words>
std::string joined(const Range& range, Words words) {
  std::vector<std::string> list;
  list.reserve(range.size());
  for (const auto& each : range) list.push_back(words(each));
  return list_of(list);
}

}  // namespace

std::string InUse::uses_text() const {
  return joined(uses, [](const Use& use) { return use.what; });
}

std::string InUse::losses_text() const {
  return joined(uses, [](const Use& use) { return use.loss; });
}

std::string InUse::unknown_text() const { return list_of(unknown); }

void add_losses(Json& json, const InUse& in_use) {
  json["lost"] = text_or_null(in_use.losses_text());
  json["cannot_tell"] = text_or_null(in_use.unknown_text());
}

InUse find_uses(Kernel& kernel, const HostDevice& device) {
  InUse found;
  find_disk_uses(kernel, device, found);
  find_network_uses(kernel, device, found);
  find_virtual_functions(kernel, device, found);
  // A display that is bound to VFIO has lost its picture already.
  if (!device.is_vfio) find_display(kernel, device, found);
  find_processes(kernel, device, found);
  return found;
}

Result<void> require_unused(const InUse& in_use, const HostDevice& device, const std::string& command) {
  Error::Details refusal{
      .code = EBUSY, .operation = command, .object = device.name, .reason = {}, .remedy = {}, .causes = {}};
  if (!in_use.uses.empty()) {
    refusal.reason = fmt::format("this host uses it: {}", in_use.uses_text());
    refusal.remedy =
        fmt::format("stop that use first; \"--force\" takes the device anyway, and loses {}", in_use.losses_text());
  } else if (!in_use.unknown.empty()) {
    refusal.reason = fmt::format("it is unknown whether this host uses it: {}", in_use.unknown_text());
    refusal.remedy = "run this as root, outside of containers; \"--force\" takes the device without this check";
  } else {
    return {};
  }
  return failure(std::move(refusal));
}

Result<InUse> take_from_host(const Session& session, const HostDevice& device, const std::string& command, bool force) {
  InUse in_use = find_uses(session.kernel, device);
  if (auto unused = require_unused(in_use, device, command); !unused && !force) return failure_of(unused);
  if (!in_use.unknown.empty()) {
    session.note(
        fmt::format("postern: note: it is unknown whether this host uses it: {}\n", printable(in_use.unknown_text())));
  }
  if (!in_use.uses.empty())
    session.note(fmt::format("postern: note: this host loses {}\n", printable(in_use.losses_text())));
  return in_use;
}

}  // namespace postern::tool
