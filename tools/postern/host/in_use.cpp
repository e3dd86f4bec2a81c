// SPDX-License-Identifier: Apache-2.0
// What this host does with a device: all but disks and network interfaces.
#include "host/in_use.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <sstream>
#include <string_view>

#include "host/holders.hpp"

namespace postern::tool {
namespace {

std::uint64_t count_of(const std::string& digits) {
  std::uint64_t count = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), count);
  return count;
}

// Unbinding the driver of a physical function takes its virtual functions away.
void find_virtual_functions(Kernel& kernel, const HostDevice& device, InUse& found) {
  const auto count = count_of(attribute(kernel, device.sysfs_path + "/sriov_numvfs"));
  if (count == 0) return;
  const std::string functions = fmt::format("{} virtual function{}", count, count == 1 ? "" : "s");
  found.uses.push_back({.what = fmt::format("it has {} enabled (sriov_numvfs)", functions),
                        .loss = fmt::format("its {}, and what uses them", functions)});
}

// Who of the firmware's framebuffers has memory of the device, from /proc/iomem: what is nested in the device's line.
// Without root all addresses there are 0, but the names and the nesting are right.
std::string framebuffer_of(Kernel& kernel, const HostDevice& device) {
  constexpr std::array<std::string_view, 5> names = {"BOOTFB", "efifb", "simplefb", "simple-framebuffer", "vesafb"};
  std::string text;
  if (kernel.read_file("/proc/iomem", text) < 0) return {};
  std::istringstream lines(text);
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
  const std::string framebuffer = framebuffer_of(kernel, device);
  const bool boot = attribute(kernel, device.sysfs_path + "/boot_vga") == "1";
  if (!framebuffer.empty()) {
    found.uses.push_back({.what = fmt::format("the boot framebuffer ({}) holds one of its BARs", framebuffer),
                          .loss = "the picture of this host's console"});
  } else if (boot) {
    found.uses.push_back({.what = "it is the boot display (boot_vga)", .loss = "the picture of this host's console"});
  }
}

// NVIDIA's own driver makes its nodes without sysfs.
void add_nvidia_nodes(Kernel& kernel, const HostDevice& device, std::vector<std::string>& paths) {
  if (device.driver != "nvidia") return;
  std::string text;
  if (kernel.read_file(fmt::format("/proc/driver/nvidia/gpus/{}/information", device.name), text) >= 0) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with("Device Minor:")) continue;
      const auto digits = line.find_first_of("0123456789");
      if (digits != std::string::npos) paths.push_back("/dev/nvidia" + line.substr(digits));
      return;
    }
  }
  // Which one is its own is not told: any of them may be.
  std::vector<std::string> names;
  if (kernel.list_directory("/dev", names) < 0) return;
  for (const std::string& name : names) {
    if (name.starts_with("nvidia") && name.size() > 6 && name[6] >= '0' && name[6] <= '9')
      paths.push_back("/dev/" + name);
  }
}

// The nodes in /dev of the device, but for VFIO's: /dev/dri/card0, /dev/nvme0, /dev/nvme0n1, /dev/infiniband/uverbs0.
std::vector<std::string> nodes_of(Kernel& kernel, const HostDevice& device, InUse& found) {
  std::vector<std::string> paths;
  for (const std::string folder : {"/sys/dev/char", "/sys/dev/block"}) {
    std::vector<std::string> numbers;
    if (const int result = kernel.list_directory(folder, numbers); result < 0 && result != -ENOENT) {
      found.unknown.push_back(fmt::format("its nodes: {}: {}", folder, std::strerror(-result)));
    }
    for (const std::string& number : numbers) {
      const std::string link = fmt::format("{}/{}", folder, number);
      if (!leads_to(kernel, link, device)) continue;
      std::string text;
      if (kernel.read_file(link + "/uevent", text) < 0) continue;
      std::istringstream lines(text);
      for (std::string line; std::getline(lines, line);) {
        if (line.starts_with("DEVNAME=") && !line.starts_with("DEVNAME=vfio/"))
          paths.push_back("/dev/" + line.substr(8));
      }
    }
  }
  add_nvidia_nodes(kernel, device, paths);
  return paths;
}

void find_processes(Kernel& kernel, const HostDevice& device, InUse& found) {
  const std::vector<std::string> paths = nodes_of(kernel, device, found);
  if (paths.empty()) return;
  const Holders holders = find_holders(kernel, paths);
  if (!holders.processes.empty()) {
    const std::string who = list_of(holders.processes);
    found.uses.push_back(
        {.what =
             fmt::format("{} {} {} open", who, holders.processes.size() == 1 ? "has" : "have", list_of(holders.paths)),
         .loss = fmt::format("what {} {} with it", who, holders.processes.size() == 1 ? "does" : "do")});
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

std::string attribute(Kernel& kernel, const std::string& path) {
  std::string text;
  if (kernel.read_file(path, text) < 0) return {};
  return text.substr(0, text.find('\n'));
}

bool leads_to(Kernel& kernel, const std::string& link, const HostDevice& device) {
  std::string target;
  return kernel.read_link(link, target) >= 0 && (target + "/").find("/" + device.name + "/") != std::string::npos;
}

InUse find_uses(Kernel& kernel, const HostDevice& device) {
  InUse found;
  find_disk_uses(kernel, device, found);
  find_network_uses(kernel, device, found);
  find_virtual_functions(kernel, device, found);
  // A display that was given to VFIO has lost its picture already.
  if (!device.is_vfio) find_display(kernel, device, found);
  find_processes(kernel, device, found);
  return found;
}

Result<void> require_unused(const InUse& in_use, const HostDevice& device, const std::string& verb) {
  Error::Details refusal{
      .code = EBUSY, .operation = verb, .object = device.name, .reason = {}, .remedy = {}, .causes = {}};
  if (!in_use.uses.empty()) {
    refusal.reason = fmt::format("this host uses it: {}", in_use.uses_text());
    refusal.remedy =
        fmt::format("end that first; \"--force\" takes the device all the same, and loses {}", in_use.losses_text());
  } else if (!in_use.unknown.empty()) {
    refusal.reason = fmt::format("whether this host uses it cannot be told: {}", in_use.unknown_text());
    refusal.remedy =
        "run this as root and outside of containers, where it can be told; \"--force\" takes the device without "
        "knowing";
  } else {
    return {};
  }
  return failure(std::move(refusal));
}

Result<InUse> take_from_host(const Session& session, const HostDevice& device, const std::string& verb, bool force) {
  InUse in_use = find_uses(session.kernel, device);
  if (auto unused = require_unused(in_use, device, verb); !unused && !force) return failure_of(unused);
  if (!in_use.unknown.empty()) {
    session.note(
        fmt::format("postern: note: what it is used for cannot be told: {}\n", printable(in_use.unknown_text())));
  }
  if (!in_use.uses.empty())
    session.note(fmt::format("postern: note: lost with it: {}\n", printable(in_use.losses_text())));
  return in_use;
}

}  // namespace postern::tool
