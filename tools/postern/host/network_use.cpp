// SPDX-License-Identifier: Apache-2.0
// find_network_uses(): whether this host uses a device's network interfaces.
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
#include "host/reading.hpp"

namespace postern::tool {
namespace {

constexpr const char* net_class = "/sys/class/net/";

// Returns the interfaces of default routes: IPv4 by destination and mask, IPv6 by destination and prefix length.
std::set<std::string> default_routes(Reading& reading) {
  std::set<std::string> names;
  std::istringstream lines(reading.text("/proc/net/route"));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string name, destination, gateway, flags, count, use, metric, mask;
    words >> name >> destination >> gateway >> flags >> count >> use >> metric >> mask;
    if (destination == "00000000" && mask == "00000000") names.insert(name);
  }
  std::istringstream lines_of_ipv6(reading.text("/proc/net/ipv6_route"));
  for (std::string line; std::getline(lines_of_ipv6, line);) {
    std::istringstream words(line);
    std::string destination, length, word, name;
    words >> destination >> length;
    while (words >> word) name = word;
    if (destination == std::string(32, '0') && length == "00" && name != "lo") names.insert(name);
  }
  return names;
}

bool is_up(Reading& reading, const std::string& interface) {
  const std::string text = reading.line(net_class + interface + "/flags");
  unsigned flags = 0;
  if (!text.starts_with("0x")) return false;
  std::from_chars(text.data() + 2, text.data() + text.size(), flags, 16);
  return (flags & IFF_UP) != 0;
}

// Returns the interfaces on top of it: bonds, bridges, VLANs.
std::vector<std::string> uppers_of(Reading& reading, const std::string& interface) {
  constexpr std::string_view prefix = "upper_";
  std::vector<std::string> names = reading.entries(net_class + interface);
  std::erase_if(names, [&](const std::string& name) { return !name.starts_with(prefix); });
  for (std::string& name : names) name.erase(0, prefix.size());
  std::string master = reading.target(net_class + interface + "/master");
  master.erase(0, master.rfind('/') + 1);
  if (!master.empty() && std::find(names.begin(), names.end(), master) == names.end()) names.push_back(master);
  return names;
}

// sysfs shows only the interfaces of this network namespace, but the folder of the others exists, too.
Result<bool> has_hidden_interface(Kernel& kernel, const HostDevice& device) {
  std::vector<std::string> folders = {device.sysfs_path};
  for (const std::string& child : POSTERN_TRY(read_entries(kernel, device.sysfs_path))) {
    if (child.starts_with("virtio")) folders.push_back(device.sysfs_path + "/" + child);
  }
  for (const std::string& folder : folders) {
    const std::string interfaces = folder + "/net";
    if (POSTERN_TRY(is_there(kernel, interfaces)) && POSTERN_TRY(read_entries(kernel, interfaces)).empty()) return true;
  }
  return false;
}

}  // namespace

void find_network_uses(Kernel& kernel, const HostDevice& device, InUse& found) {
  Reading reading(kernel, "its network interfaces", found.unknown);
  std::vector<std::string> interfaces = reading.entries("/sys/class/net");
  std::erase_if(interfaces, [&](const std::string& name) { return !reading.leads_to(net_class + name, device); });
  if (interfaces.empty()) {
    const auto hidden = has_hidden_interface(kernel, device);
    if (!hidden) {
      const Error& error = hidden.error();
      found.unknown.push_back(
          fmt::format("its network interfaces: {}: {}", error.object(), std::strerror(error.code())));
    } else if (*hidden) {
      found.unknown.emplace_back("its network interface is in another network namespace");
    }
    return;
  }
  const std::set<std::string> defaults = default_routes(reading);
  for (const std::string& name : interfaces) {
    std::vector<std::string> ways;
    if (is_up(reading, name)) ways.emplace_back("is up");
    const std::vector<std::string> uppers = uppers_of(reading, name);
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
