// SPDX-License-Identifier: Apache-2.0
// Whether this host uses a disk. The kernel decides, by an exclusive open; the rest finds words for it.
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

namespace postern::tool {
namespace {

constexpr const char* block_class = "/sys/class/block/";

// A disk or a partition of one.
struct Block {
  std::string name;    // "nvme0n1p1"
  std::string place;   // where its link in /sys/class/block leads: ".../nvme0n1/nvme0n1p1"
  std::string number;  // "259:1"
  [[nodiscard]] std::string folder() const { return block_class + name; }
  // The kernel spells a slash of /dev/cciss/c0d0 as "!" where it is a file's name.
  [[nodiscard]] std::string node() const {
    std::string path = "/dev/" + name;
    std::replace(path.begin(), path.end(), '!', '/');
    return path;
  }
};

// The names of NVMe subsystems that a controller of this device is a path of. A namespace that several controllers
// may share (CMIC) hangs beneath its subsystem, not beneath a controller.
std::vector<std::string> nvme_subsystems(Kernel& kernel, const HostDevice& device) {
  const std::string root = "/sys/class/nvme-subsystem";
  std::vector<std::string> names;
  if (kernel.list_directory(root, names) < 0) return {};
  std::erase_if(names, [&](const std::string& name) {
    const std::string folder = root + "/" + name;
    std::vector<std::string> entries;
    if (kernel.list_directory(folder, entries) < 0) return true;
    return std::none_of(entries.begin(), entries.end(), [&](const std::string& entry) {
      return leads_to(kernel, folder + "/" + entry, device) || leads_to(kernel, "/sys/class/nvme/" + entry, device);
    });
  });
  return names;
}

std::vector<Block> blocks_of(Kernel& kernel, const HostDevice& device, InUse& found) {
  std::vector<std::string> names;
  if (const int result = kernel.list_directory("/sys/class/block", names); result < 0 && result != -ENOENT) {
    found.unknown.push_back(fmt::format("its disks: /sys/class/block: {}", std::strerror(-result)));
  }
  const std::vector<std::string> subsystems = nvme_subsystems(kernel, device);
  std::vector<Block> blocks;
  for (const std::string& name : names) {
    Block block{.name = name, .place = {}, .number = {}};
    if (kernel.read_link(block.folder(), block.place) < 0) continue;
    const bool ours = leads_to(kernel, block.folder(), device) ||
                      std::any_of(subsystems.begin(), subsystems.end(), [&](const std::string& subsystem) {
                        return block.place.find("/" + subsystem + "/") != std::string::npos;
                      });
    // One path of a disk with several is hidden: nobody can open it.
    if (!ours || attribute(kernel, block.folder() + "/hidden") == "1") continue;
    block.number = attribute(kernel, block.folder() + "/dev");
    blocks.push_back(std::move(block));
  }
  return blocks;
}

// How the kernel answers an exclusive open: 0 (nobody has claimed it), -EBUSY, or why it cannot be told. Mounts in any
// namespace claim a disk, as do md, dm, ZFS, each disk of a btrfs, swap, and what exports disks; and a partition that
// is claimed refuses the whole disk.
int ask_exclusively(Kernel& kernel, const Block& block) {
  FileStatus status;
  if (const int result = kernel.status(block.node(), status); result < 0) return result;
  const std::string number = fmt::format("{}:{}", major(status.device), minor(status.device));
  if (!block.number.empty() && number != block.number) return -ENODEV;  // a node that was left over
  const Fd fd(kernel, kernel.open(block.node().c_str(), O_RDONLY | O_EXCL | O_NONBLOCK));
  // In a drive without a medium nothing can be claimed.
  return fd || fd.get() == -ENOMEDIUM ? 0 : fd.get();
}

// The fields of a line, by white space.
std::vector<std::string> fields_of(const std::string& line) {
  std::istringstream words(line);
  return {std::istream_iterator<std::string>(words), std::istream_iterator<std::string>()};
}

// Where it is mounted, as far as this mount namespace shows: by its number or, where a file system has one of its own
// (btrfs), by its node's name. A line: ID PARENT MAJOR:MINOR ROOT PLACE OPTIONS [TAG...] - TYPE SOURCE OPTIONS.
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

// What /proc and sysfs know of its use; empty where they do not.
InUse::Use named_use(Kernel& kernel, const Block& block) {
  if (const std::string place = mount_of(kernel, block); !place.empty()) {
    return {.what = place == "/" ? fmt::format("{} has the root file system", block.name)
                                 : fmt::format("{} is mounted on {}", block.name, place),
            .loss = fmt::format("what is mounted on {}", place)};
  }
  if (holds_swap(kernel, block)) {
    return {.what = fmt::format("{} holds swap", block.name),
            .loss = "the memory of processes that is swapped out to it"};
  }
  std::vector<std::string> upper;
  if (kernel.list_directory(block.folder() + "/holders", upper) >= 0 && !upper.empty()) {
    const std::string volume = attribute(kernel, block_class + upper.front() + "/dm/name");
    const std::string name = volume.empty() ? upper.front() : fmt::format("{} ({})", upper.front(), volume);
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
  // A disk is refused for its partitions, too; where such a one is named, that says it.
  for (const Block& block : unnamed) {
    const auto is_within = [&](const std::string& place) { return place.starts_with(block.place + "/"); };
    const auto is_part = [&](const Block& other) { return is_within(other.place); };
    if (std::any_of(used_places.begin(), used_places.end(), is_within)) continue;
    if (std::any_of(unnamed.begin(), unnamed.end(), is_part)) continue;
    found.uses.push_back(
        {.what = fmt::format("{} refuses an exclusive open (EBUSY): it is mounted in another namespace, or part of a "
                             "pool, an array or a volume, or exported",
                             block.name),
         .loss = fmt::format("what is on {}", block.name)});
  }
}

}  // namespace postern::tool
