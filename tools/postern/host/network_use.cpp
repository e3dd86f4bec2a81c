// SPDX-License-Identifier: Apache-2.0
// Whether this host uses a network interface.
#include <fmt/format.h>
#include <net/if.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <set>
#include <sstream>

#include "host/holders.hpp"
#include "host/in_use.hpp"

namespace postern::tool {
namespace {

constexpr const char* net_class = "/sys/class/net/";

// Interfaces that a default route goes through: of IPv4 by destination and mask, of IPv6 by destination and length.
std::set<std::string> default_routes(Kernel& kernel) {
  std::set<std::string> names;
  std::string text;
  if (kernel.read_file("/proc/net/route", text) >= 0) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string name, destination, gateway, flags, count, use, metric, mask;
      words >> name >> destination >> gateway >> flags >> count >> use >> metric >> mask;
      if (destination == "00000000" && mask == "00000000") names.insert(name);
    }
  }
  if (kernel.read_file("/proc/net/ipv6_route", text) >= 0) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string destination, length, word, name;
      words >> destination >> length;
      while (words >> word) name = word;
      if (destination == std::string(32, '0') && length == "00" && name != "lo") names.insert(name);
    }
  }
  return names;
}

bool is_up(Kernel& kernel, const std::string& interface) {
  const std::string text = attribute(kernel, net_class + interface + "/flags");
  unsigned flags = 0;
  if (!text.starts_with("0x")) return false;
  std::from_chars(text.data() + 2, text.data() + text.size(), flags, 16);
  return (flags & IFF_UP) != 0;
}

// What stands on top of it: bonds, bridges, VLANs.
std::vector<std::string> uppers_of(Kernel& kernel, const std::string& interface) {
  constexpr std::string_view prefix = "upper_";
  std::vector<std::string> names;
  if (kernel.list_directory(net_class + interface, names) < 0) return {};
  std::erase_if(names, [&](const std::string& name) { return !name.starts_with(prefix); });
  for (std::string& name : names) name.erase(0, prefix.size());
  std::string master;
  if (kernel.read_link(net_class + interface + "/master", master) >= 0) {
    master.erase(0, master.rfind('/') + 1);
    if (std::find(names.begin(), names.end(), master) == names.end()) names.push_back(master);
  }
  return names;
}

// sysfs shows the interfaces of one network namespace alone. The folder that they stand in is there all the same.
bool has_hidden_interface(Kernel& kernel, const HostDevice& device) {
  std::vector<std::string> folders = {device.sysfs_path};
  std::vector<std::string> children;
  if (kernel.list_directory(device.sysfs_path, children) >= 0) {
    for (const std::string& child : children) {
      if (child.starts_with("virtio")) folders.push_back(device.sysfs_path + "/" + child);
    }
  }
  return std::any_of(folders.begin(), folders.end(), [&](const std::string& folder) {
    std::vector<std::string> interfaces;
    return kernel.list_directory(folder + "/net", interfaces) >= 0 && interfaces.empty();
  });
}

}  // namespace

void find_network_uses(Kernel& kernel, const HostDevice& device, InUse& found) {
  std::vector<std::string> interfaces;
  if (const int result = kernel.list_directory("/sys/class/net", interfaces); result < 0 && result != -ENOENT) {
    found.unknown.push_back(fmt::format("its network interfaces: /sys/class/net: {}", std::strerror(-result)));
  }
  std::erase_if(interfaces, [&](const std::string& name) { return !leads_to(kernel, net_class + name, device); });
  if (interfaces.empty()) {
    if (has_hidden_interface(kernel, device))
      found.unknown.emplace_back("its network interface is in another network namespace");
    return;
  }
  const std::set<std::string> defaults = default_routes(kernel);
  for (const std::string& name : interfaces) {
    std::vector<std::string> ways;
    if (is_up(kernel, name)) ways.emplace_back("is up");
    const std::vector<std::string> uppers = uppers_of(kernel, name);
    if (defaults.contains(name)) ways.emplace_back("has the default route");
    for (const std::string& upper : uppers) {
      ways.push_back(
          fmt::format("is part of {}{}", upper, defaults.contains(upper) ? ", which has the default route" : ""));
    }
    if (ways.empty()) continue;
    found.uses.push_back({.what = fmt::format("the network interface {} {}", name, list_of(ways)),
                          .loss = fmt::format("this host's network through {}", name)});
  }
}

}  // namespace postern::tool
