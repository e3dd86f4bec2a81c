// SPDX-License-Identifier: Apache-2.0
// find_disk_uses(): whether this host uses a disk. An exclusive open decides that; the rest names the use.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <postern/fd.hpp>
#include <sstream>

#include "host/in_use.hpp"
#include "host/reading.hpp"

namespace postern::tool {
namespace {

constexpr const char* block_class = "/sys/class/block/";

// A disk or a partition of one.
struct Block {
  std::string name;    // "nvme0n1p1"
  std::string place;   // where its link in /sys/class/block leads: ".../nvme0n1/nvme0n1p1"
  std::string number;  // "259:1"
  [[nodiscard]] std::string folder() const { return block_class + name; }
  // In sysfs, the kernel writes the slash of /dev/cciss/c0d0 as "!".
  [[nodiscard]] std::string node() const {
    std::string path = "/dev/" + name;
    std::replace(path.begin(), path.end(), '!', '/');
    return path;
  }
};

// Returns the NVMe subsystems to which this device's controllers belong. In sysfs, a namespace that several controllers
// may share (CMIC) is a child of its subsystem, not of a controller.
std::vector<std::string> nvme_subsystems(Reading& reading, const HostDevice& device) {
  const std::string root = "/sys/class/nvme-subsystem";
  std::vector<std::string> names = reading.entries(root);
  std::erase_if(names, [&](const std::string& name) {
    const std::string folder = root + "/" + name;
    const std::vector<std::string> entries = reading.entries(folder);
    return std::none_of(entries.begin(), entries.end(), [&](const std::string& entry) {
      return reading.leads_to(folder + "/" + entry, device) || reading.leads_to("/sys/class/nvme/" + entry, device);
    });
  });
  return names;
}

std::vector<Block> blocks_of(Kernel& kernel, const HostDevice& device, InUse& found) {
  Reading reading(kernel, "its disks", found.unknown);
  const std::vector<std::string> names = reading.entries("/sys/class/block");
  const std::vector<std::string> subsystems = nvme_subsystems(reading, device);
  std::vector<Block> blocks;
  for (const std::string& name : names) {
    Block block{.name = name, .place = {}, .number = {}};
    block.place = reading.target(block.folder());
    const bool owned = reading.leads_to(block.folder(), device) ||
                       std::any_of(subsystems.begin(), subsystems.end(), [&](const std::string& subsystem) {
                         return block.place.find("/" + subsystem + "/") != std::string::npos;
                       });
    // A single path of a multipath disk is hidden, and cannot be opened.
    if (!owned || reading.line(block.folder() + "/hidden") == "1") continue;
    block.number = reading.line(block.folder() + "/dev");
    blocks.push_back(std::move(block));
  }
  return blocks;
}

// Tries an exclusive open: 0 (not claimed), -EBUSY (claimed), or another errno (unknown). Mounts in any namespace claim
// a disk, and so do md, dm, ZFS, btrfs (each of its disks), swap, and disk exports. The open of a whole disk fails if
// one of its partitions is claimed.
int ask_exclusively(Kernel& kernel, const Block& block) {
  FileStatus status;
  if (const int result = kernel.status(block.node(), status); result < 0) return result;
  const std::string number = fmt::format("{}:{}", major(status.device), minor(status.device));
  if (!block.number.empty() && number != block.number) return -ENODEV;  // a stale node
  const Fd fd(kernel, kernel.open(block.node().c_str(), O_RDONLY | O_EXCL | O_NONBLOCK));
  // A drive without a medium is not claimed.
  return fd || fd.get() == -ENOMEDIUM ? 0 : fd.get();
}

// Splits a line at white space.
std::vector<std::string> fields_of(const std::string& line) {
  std::istringstream words(line);
  return {std::istream_iterator<std::string>(words), std::istream_iterator<std::string>()};
}

// Returns where it is mounted in this mount namespace. Compares its device number and, for file systems with a number
// of their own (btrfs), its node. A line: ID PARENT MAJOR:MINOR ROOT PLACE OPTIONS [TAG...] - TYPE SOURCE OPTIONS.
std::string mount_of(Kernel& kernel, const Block& block) {
  std::string text;
  if (kernel.read_file("/proc/self/mountinfo", text) < 0) return {};
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto fields = fields_of(line);
    const auto dash = std::find(fields.begin(), fields.end(), "-");
    if (fields.size() < 5 || std::distance(dash, fields.end()) < 3) continue;
    if (fields[2] == block.number || dash[2] == block.node()) return fields[4];
  }
  return {};
}

bool holds_swap(Kernel& kernel, const Block& block) {
  std::string text;
  if (kernel.read_file("/proc/swaps", text) < 0) return false;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (const auto fields = fields_of(line); !fields.empty() && fields[0] == block.node()) return true;
  }
  return false;
}

// Returns its use according to /proc and sysfs; empty if they do not show it or cannot be read. It only names the use
// that the exclusive open has found.
InUse::Use named_use(Kernel& kernel, const Block& block) {
  if (const std::string place = mount_of(kernel, block); !place.empty()) {
    return {.what = place == "/" ? fmt::format("{} holds the root file system", block.name)
                                 : fmt::format("{} is mounted on {}", block.name, place),
            .loss = fmt::format("the file system on {}", place)};
  }
  if (holds_swap(kernel, block)) {
    return {.what = fmt::format("{} holds swap", block.name), .loss = "the process memory that is swapped out to it"};
  }
  std::vector<std::string> upper;
  if (kernel.list_directory(block.folder() + "/holders", upper) >= 0 && !upper.empty()) {
    const auto volume = read_text(kernel, block_class + upper.front() + "/dm/name").value_or(std::nullopt);
    const std::string name =
        volume ? fmt::format("{} ({})", upper.front(), volume->substr(0, volume->find('\n'))) : upper.front();
    return {.what = fmt::format("{} is part of {}", block.name, name), .loss = name};
  }
  return {};
}

}  // namespace

void find_disk_uses(Kernel& kernel, const HostDevice& device, InUse& found) {
  std::vector<Block> unnamed;
  std::vector<std::string> used_places;
  for (const Block& block : blocks_of(kernel, device, found)) {
    const int answer = ask_exclusively(kernel, block);
    if (answer == 0) continue;
    if (InUse::Use use = named_use(kernel, block); !use.what.empty()) {
      found.uses.push_back(std::move(use));
      used_places.push_back(block.place);
    } else if (answer == -EBUSY) {
      unnamed.push_back(block);
    } else {
      found.unknown.push_back(fmt::format("{}: open {}: {}", block.name, block.node(), std::strerror(-answer)));
    }
  }
  // The open of a whole disk also fails for its partitions; it is left out if one of them is reported.
  for (const Block& block : unnamed) {
    const auto is_within = [&](const std::string& place) { return place.starts_with(block.place + "/"); };
    const auto is_part = [&](const Block& other) { return is_within(other.place); };
    if (std::any_of(used_places.begin(), used_places.end(), is_within)) continue;
    if (std::any_of(unnamed.begin(), unnamed.end(), is_part)) continue;
    found.uses.push_back({.what = fmt::format("{} cannot be opened exclusively (EBUSY): it is mounted in another "
                                              "namespace, or part of a pool, an array or a volume, or exported",
                                              block.name),
                          .loss = fmt::format("the data on {}", block.name)});
  }
}

}  // namespace postern::tool
