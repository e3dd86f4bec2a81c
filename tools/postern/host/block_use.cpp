// SPDX-License-Identifier: Apache-2.0
// Whether this host uses a disk.
#include "host/block_use.hpp"

#include <fmt/format.h>

#include <sstream>
#include <vector>

namespace postern::tool {
namespace {

// The first field of each line of /proc/self/mounts and /proc/swaps is the device; of mounts the second is where.
std::string use_of(const std::string& block, const std::string& mounts, const std::string& swaps) {
  const std::string node = "/dev/" + block;
  std::istringstream mount_lines(mounts);
  for (std::string line, device, place; std::getline(mount_lines, line);) {
    if (std::istringstream(line) >> device >> place && device == node)
      return fmt::format("{} is mounted on {}", block, place);
  }
  std::istringstream swap_lines(swaps);
  for (std::string line, device; std::getline(swap_lines, line);) {
    if (std::istringstream(line) >> device && device == node) return fmt::format("{} holds swap", block);
  }
  return {};
}

}  // namespace

std::string block_use(Kernel& kernel, PciAddress address) {
  std::vector<std::string> blocks;
  std::string mounts;
  std::string swaps;
  if (kernel.list_directory("/sys/class/block", blocks) < 0) return {};
  if (kernel.read_file("/proc/self/mounts", mounts) < 0) mounts.clear();
  if (kernel.read_file("/proc/swaps", swaps) < 0) swaps.clear();
  const std::string part = "/" + to_string(address) + "/";
  for (const std::string& block : blocks) {
    std::string target;
    if (kernel.read_link("/sys/class/block/" + block, target) < 0 || target.find(part) == std::string::npos) continue;
    if (std::string use = use_of(block, mounts, swaps); !use.empty()) return use;
    std::vector<std::string> upper;
    if (kernel.list_directory(fmt::format("/sys/class/block/{}/holders", block), upper) >= 0 && !upper.empty()) {
      return fmt::format("{} is part of {}", block, upper.front());
    }
  }
  return {};
}

}  // namespace postern::tool
